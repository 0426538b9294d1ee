//! The system calls that the daemon makes once it serves; all others are refused (seccomp(2)).
//!
//! Nothing but `prctl` and `socket` is judged by its arguments: the kernel remembers which calls a filter allows
//! whatever they are given, and does not run it for them (`seccomp_cache_check_allow` in `kernel/seccomp.c`).

use std::collections::BTreeMap;

use linux_raw_sys::general as nr;
use linux_raw_sys::net::AF_UNIX;
use linux_raw_sys::prctl::{PR_GET_NAME, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_VMA};
use nix::errno::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::{Needs, UnknownCalls};

/// A table of calls.
type Calls = &'static [u32];

/// Files of `/proc`, of targets, and `/dev/fuse`.
const FILES: Calls = &[
    nr::__NR_close,
    nr::__NR_dup,
    nr::__NR_dup3,
    nr::__NR_faccessat,
    nr::__NR_faccessat2,
    nr::__NR_fcntl,
    nr::__NR_fstat,
    nr::__NR_fstatfs,
    nr::__NR_getcwd,
    nr::__NR_getdents64,
    nr::__NR_ioctl,
    nr::__NR_lseek,
    nr::__NR_newfstatat,
    nr::__NR_openat,
    nr::__NR_ppoll,
    nr::__NR_pread64,
    nr::__NR_preadv,
    nr::__NR_preadv2,
    nr::__NR_pwrite64,
    nr::__NR_pwritev,
    nr::__NR_pwritev2,
    nr::__NR_read,
    nr::__NR_readlinkat,
    nr::__NR_readv,
    nr::__NR_statfs,
    nr::__NR_statx,
    nr::__NR_write,
    nr::__NR_writev,
];

/// Those that newer architectures have under one name only, which C libraries use where they are.
#[cfg(target_arch = "x86_64")]
const OLDER: Calls = &[
    nr::__NR_access,
    nr::__NR_dup2,
    nr::__NR_lstat,
    nr::__NR_open,
    nr::__NR_poll,
    nr::__NR_readlink,
    nr::__NR_stat,
    nr::__NR_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: Calls = &[];

/// Our own memory, threads, signals and clocks.
const OURSELVES: Calls = &[
    nr::__NR_brk,
    nr::__NR_clock_getres,
    nr::__NR_clock_gettime,
    nr::__NR_clock_nanosleep,
    // Threads of musl, and of older kernels.
    nr::__NR_clone,
    nr::__NR_clone3,
    nr::__NR_exit,
    nr::__NR_exit_group,
    nr::__NR_futex,
    nr::__NR_getcpu,
    nr::__NR_getegid,
    nr::__NR_geteuid,
    nr::__NR_getgid,
    nr::__NR_getpid,
    nr::__NR_getppid,
    nr::__NR_getrandom,
    nr::__NR_gettid,
    nr::__NR_gettimeofday,
    nr::__NR_getuid,
    nr::__NR_madvise,
    nr::__NR_membarrier,
    nr::__NR_mmap,
    nr::__NR_mprotect,
    nr::__NR_mremap,
    nr::__NR_munmap,
    nr::__NR_nanosleep,
    nr::__NR_prlimit64,
    nr::__NR_restart_syscall,
    nr::__NR_rseq,
    nr::__NR_rt_sigaction,
    nr::__NR_rt_sigprocmask,
    nr::__NR_rt_sigreturn,
    nr::__NR_rt_sigtimedwait,
    nr::__NR_sched_getaffinity,
    nr::__NR_sched_yield,
    nr::__NR_set_robust_list,
    nr::__NR_set_tid_address,
    nr::__NR_sigaltstack,
    nr::__NR_sysinfo,
    nr::__NR_tgkill,
    nr::__NR_tkill,
    nr::__NR_uname,
];

/// What ends a mount, and watches who has to.
const MOUNTS: Calls = &[nr::__NR_pidfd_open, nr::__NR_umount2];

/// Memory of others, and the log.
const SERVING: Calls = &[
    nr::__NR_connect,
    // Long lines for the journal.
    nr::__NR_memfd_create,
    nr::__NR_pidfd_getfd,
    nr::__NR_process_vm_readv,
    nr::__NR_sendmsg,
    nr::__NR_sendto,
    nr::__NR_userfaultfd,
];

/// Credentials of a caller, for a thread alone, or for a process that enters their user namespace.
const JUDGING: Calls = &[
    nr::__NR_capget,
    nr::__NR_capset,
    nr::__NR_getgroups,
    // That process, where somebody has stopped it.
    nr::__NR_kill,
    nr::__NR_setfsgid,
    nr::__NR_setfsuid,
    nr::__NR_setgroups,
    nr::__NR_setns,
    nr::__NR_setresgid,
    nr::__NR_setresuid,
    nr::__NR_wait4,
];

/// Threads of others that are stopped, and what is copied meanwhile.
const STOPPING: Calls = &[
    nr::__NR_fallocate,
    nr::__NR_ftruncate,
    nr::__NR_kcmp,
    nr::__NR_ptrace,
    nr::__NR_waitid,
];

/// Requests over io_uring. The rings that there are take commands to files alone (`transport::uring`), and no more are made.
const RINGS: Calls = &[nr::__NR_io_uring_enter, nr::__NR_sched_setaffinity];

/// What `prctl` may be asked for: a thread's name, and that of a piece of memory (glibc).
const PRCTL: [u32; 3] = [PR_GET_NAME, PR_SET_NAME, PR_SET_VMA];

/// Installs the filter for this thread and those that it starts.
///
/// # Errors
/// In words, why there is none.
pub(super) fn install(needs: &Needs) -> Result<(), String> {
    let unknown = match needs.unknown_calls {
        UnknownCalls::Refused => SeccompAction::Errno(Errno::ENOSYS as u32),
        UnknownCalls::Fatal => SeccompAction::KillProcess,
        UnknownCalls::Allowed => return Ok(()),
    };
    let program = program(&tables(needs), unknown).map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}

fn tables(needs: &Needs) -> Vec<Calls> {
    let mut tables = vec![FILES, OLDER, OURSELVES, MOUNTS];
    if needs.serves {
        tables.push(SERVING);
    }
    if needs.rings {
        tables.push(RINGS);
    }
    if needs.judges_callers {
        tables.push(JUDGING);
    }
    if needs.stops {
        tables.push(STOPPING);
    }
    tables
}

fn program(
    tables: &[Calls],
    unknown: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let calls = tables.iter().copied().flatten();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        calls.map(|call| (i64::from(*call), Vec::new())).collect();
    let names = PRCTL.iter().map(|option| first_is(*option));
    let mut prctl = names.collect::<Result<Vec<_>, _>>()?;
    // Once more, and never the other way.
    prctl.push(SeccompRule::new(vec![
        argument_is(0, PR_SET_DUMPABLE)?,
        argument_is(1, 0)?,
    ])?);
    rules.insert(i64::from(nr::__NR_prctl), prctl);
    // The system's log.
    let local = vec![first_is(AF_UNIX)?];
    rules.insert(i64::from(nr::__NR_socket), local);
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, unknown, SeccompAction::Allow, arch)?.try_into()
}

/// That the first argument, an `int`, has this value.
fn first_is(value: u32) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![argument_is(0, value)?])
}

fn argument_is(number: u8, value: u32) -> Result<SeccompCondition, seccompiler::BackendError> {
    let int = SeccompCmpArgLen::Dword;
    SeccompCondition::new(number, int, SeccompCmpOp::Eq, u64::from(value))
}

#[cfg(test)]
mod tests {
    use rustix::process::{getpgid, getppid};

    use super::*;

    fn needs() -> Needs {
        Needs {
            serves: true,
            ..Needs::default()
        }
    }

    fn has(needs: &Needs, call: u32) -> bool {
        tables(needs).concat().contains(&call)
    }

    #[test]
    fn each_call_is_listed_once_and_none_starts_a_program() {
        let judging = Needs {
            judges_callers: true,
            ..needs()
        };
        let mut all = tables(&judging).concat();
        let number = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), number);
        for call in [
            nr::__NR_execve,
            nr::__NR_execveat,
            nr::__NR_mount,
            nr::__NR_ptrace,
            nr::__NR_bpf,
            nr::__NR_unshare,
            nr::__NR_unlinkat,
            nr::__NR_renameat2,
        ] {
            assert!(!all.contains(&call), "{call}");
        }
    }

    #[test]
    fn who_does_not_need_a_call_does_not_have_it() {
        let supervisor = Needs::default();
        assert!(has(&supervisor, nr::__NR_umount2));
        assert!(!has(&supervisor, nr::__NR_process_vm_readv));
        assert!(has(&needs(), nr::__NR_process_vm_readv));
        for call in [nr::__NR_setfsuid, nr::__NR_setns, nr::__NR_kill] {
            assert!(!has(&needs(), call));
        }
        let judging = Needs {
            judges_callers: true,
            ..needs()
        };
        assert!(has(&judging, nr::__NR_setfsuid));
    }

    /// A thread of its own: the filter stays for as long as it lives.
    #[test]
    fn what_is_not_listed_is_refused_as_by_an_older_kernel() {
        let filtered = std::thread::spawn(|| {
            assert!(getpgid(None).is_ok());
            install(&needs()).unwrap();
            assert_eq!(getpgid(None), Err(rustix::io::Errno::NOSYS));
            assert_eq!(
                nix::sys::socket::socket(
                    nix::sys::socket::AddressFamily::Inet,
                    nix::sys::socket::SockType::Datagram,
                    nix::sys::socket::SockFlag::empty(),
                    None,
                )
                .map(drop),
                Err(Errno::ENOSYS)
            );
            assert!(std::os::unix::net::UnixDatagram::unbound().is_ok());
            assert!(getppid().is_some());
            // Threads, their names, allocations, files.
            let other = std::thread::Builder::new().name("named".to_owned());
            let read = other.spawn(|| std::fs::read("/proc/self/status").unwrap());
            assert!(!read.unwrap().join().unwrap().is_empty());
            // What a panic shows: names out of the program's file, with or without debug information.
            let trace = std::backtrace::Backtrace::force_capture().to_string();
            assert!(trace.contains("__rust_begin_short_backtrace"), "{trace}");
        });
        filtered.join().unwrap();
    }
}
