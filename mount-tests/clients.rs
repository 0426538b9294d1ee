use crate::support::tests;
tests![];
