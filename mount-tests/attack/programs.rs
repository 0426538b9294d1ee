//! Programs of one user that follow each other.

use std::process::Command;

use super::worker::Duty;
use super::{Attack, NOT_THERE, build};
use crate::support::{Mount, rounds, tests};

tests![
    a_target_that_execs: [Need::Root, Need::Tool("cc")],
    a_target_that_execs_and_always_has_the_same_layout: [Need::Root, Need::Tool("cc")],
    a_target_whose_old_address_space_lives_on: [Need::Root, Need::Tool("cc")],
    a_target_whose_old_address_space_lives_on_and_has_the_same_layout: [Need::Root, Need::Tool("cc")],
    a_child_that_shares_the_address_space_of_its_parent: [Need::Root, Need::Tool("cc")],
    a_child_that_shares_the_address_space_and_has_the_same_layout: [Need::Root, Need::Tool("cc")],
    a_target_that_ends: [Need::Root, Need::Tool("cc")],
    a_process_id_that_is_used_again_at_once: [Need::Root, Need::Tool("cc")],
];

const SHORT: u64 = 100;
const LONG: u64 = 10_000;

/// One kind of target, read and written through two mounts: with what is kept for a while, and without.
fn attack(kind: &str, layout: &str) {
    let mounts = ["write", "write,cache_ttl=0"].map(Mount::new);
    let program = build(mounts[0].outside());
    let [kept, anew] = mounts.each_ref().map(Mount::point);
    let jobs = [
        (kept, Duty::Write),
        (anew, Duty::WriteSpace),
        (kept, Duty::Mapping),
        (anew, Duty::Mapping),
        (kept, Duty::Space),
        (anew, Duty::Space),
        (kept, Duty::Seek),
        (anew, Duty::Seek),
        (kept, Duty::Path),
        (anew, Duty::Path),
    ];
    let rounds = rounds(SHORT, LONG);
    let mut attack = Attack::start(
        Command::new(&program),
        mounts[0].outside(),
        [kind, layout],
        [&program, &program],
        jobs.len(),
        rounds,
    );
    let tally = attack.run(0, &jobs);
    attack.judge("both mounts", &tally, &NOT_THERE);
}

/// It runs itself again and again.
fn a_target_that_execs() {
    attack("exec", "random");
}

/// The same without randomization of addresses: code and stack of each program lie where those of the last one did.
fn a_target_that_execs_and_always_has_the_same_layout() {
    attack("exec", "fixed");
}

/// A child keeps the address space (`CLONE_VM`), so that descriptors of it do not say that it is gone.
fn a_target_whose_old_address_space_lives_on() {
    attack("shared", "random");
}

/// The same without randomization of addresses.
fn a_target_whose_old_address_space_lives_on_and_has_the_same_layout() {
    attack("shared", "fixed");
}

/// A child of `vfork`, which is opened while it shares the address space of its parent, and runs a program then.
fn a_child_that_shares_the_address_space_of_its_parent() {
    attack("vfork", "random");
}

/// The same without randomization of addresses.
fn a_child_that_shares_the_address_space_and_has_the_same_layout() {
    attack("vfork", "fixed");
}

/// It ends, and the next one has another number.
fn a_target_that_ends() {
    attack("exit", "random");
}

/// It ends, and the next one has its number, its layout, and mostly its start time (`clone3` with `set_tid`).
fn a_process_id_that_is_used_again_at_once() {
    attack("reuse", "random");
}
