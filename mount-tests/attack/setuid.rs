//! A program of a plain user that runs one of root's (set-user-ID).

use crate::support::tests;

tests![];
