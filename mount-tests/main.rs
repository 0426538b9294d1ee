//! Mounts the real file system and drives it with real tools.
//!
//! Each test has a mount and a target of its own and runs beside the others. A
//! test that lacks a tool counts as ignored and says so; with `CI` or
//! `PROCMEMFS_TESTS_NOTHING_SKIPPED` set it fails instead.
//!
//! `PROCMEMFS_STRESS_SECONDS` says how long the stress tests last. With `PROCMEMFS_LONG` set tests that count rounds go
//! many more of them (`docs/TESTING.md`). `PROCMEMFS_BINARY` names a program to test in the place of the one that was built
//! with the tests.

#![allow(clippy::unwrap_used)]

mod attack;
mod audit;
mod backup;
mod backups;
mod bounds;
mod cache;
mod calls;
mod churn;
mod cli;
mod clients;
mod confined;
mod containers;
mod cores;
mod daemon;
mod differential;
mod directories;
mod doctor;
mod edges;
mod faults;
mod fio;
mod fsx;
mod hardening;
mod harmless;
mod host;
mod hostile;
mod hung;
mod identity;
mod idle;
mod killed;
mod library;
mod log;
mod map;
mod model;
mod namespace;
mod options;
mod others;
mod packages;
mod pictures;
mod plain;
mod promises;
mod protection;
mod read;
mod recipes;
mod restore;
mod runtimes;
mod scan;
mod selfmap;
mod snapshots;
mod soak;
mod space;
mod sparse;
mod stats_command;
mod stress;
mod stuck;
mod support;
mod tools;
mod transports;
mod tree;
mod unreadable;
mod users;
mod write;
mod xattr;

use libtest_mimic::Arguments;

/// A shell starts what runs in its background with these ignored, which all that we start would inherit.
fn signals_as_usual() {
    for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the usual action runs none of our code.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

fn main() {
    let arguments = Arguments::from_args();
    signals_as_usual();
    // Several tests run at once: a message says whose it is.
    std::panic::set_hook(Box::new(|info| {
        eprintln!("[{}] {info}", support::current_test());
    }));
    let modules = [
        // The long ones first, so that they do not run alone at the end.
        stress::tests(),
        attack::tests(),
        audit::tests(),
        faults::tests(),
        soak::tests(),
        churn::tests(),
        model::tests(),
        killed::tests(),
        cores::tests(),
        fio::tests(),
        backup::tests(),
        backups::tests(),
        hung::tests(),
        snapshots::tests(),
        idle::tests(),
        stuck::tests(),
        selfmap::tests(),
        harmless::tests(),
        tree::tests(),
        fsx::tests(),
        tools::tests(),
        bounds::tests(),
        cache::tests(),
        differential::tests(),
        edges::tests(),
        cli::tests(),
        calls::tests(),
        clients::tests(),
        confined::tests(),
        containers::tests(),
        hardening::tests(),
        protection::tests(),
        directories::tests(),
        doctor::tests(),
        doctor::process::tests(),
        daemon::tests(),
        host::tests(),
        hostile::tests(),
        identity::tests(),
        library::tests(),
        log::tests(),
        map::tests(),
        namespace::tests(),
        options::tests(),
        others::tests(),
        packages::tests(),
        pictures::tests(),
        promises::tests(),
        read::tests(),
        recipes::tests(),
        restore::tests(),
        transports::tests(),
        unreadable::tests(),
        users::tests(),
        write::tests(),
        plain::tests(),
        runtimes::tests(),
        scan::tests(),
        space::tests(),
        sparse::tests(),
        stats_command::tests(),
        xattr::tests(),
    ];
    let trials = modules
        .into_iter()
        .flatten()
        .map(support::Test::into_trial)
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}
