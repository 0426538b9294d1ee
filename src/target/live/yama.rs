//! Yama, a security module that narrows down who may read whose memory (`Documentation/admin-guide/LSM/Yama.rst`).

use rustix::process::{PTracer, set_ptracer};

const SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// How far Yama goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Yama {
    /// It is not there, or lets the kernel's other rules be (scope 0).
    Off,
    /// The scope: 1 for descendants, 2 for who has `CAP_SYS_PTRACE`, 3 for nobody.
    Scope(u8),
    /// It is there, and this `/proc` does not say how far it goes.
    Unknown,
}

impl Yama {
    /// As it is now.
    pub(crate) fn now() -> Self {
        match std::fs::read_to_string(SCOPE) {
            Ok(text) => Self::read(&text),
            // `/proc` mounted with `subset=pid`, or no Yama: it alone knows this call.
            Err(_) if set_ptracer(PTracer::None).is_ok() => Self::Unknown,
            Err(_) => Self::Off,
        }
    }

    fn read(scope: &str) -> Self {
        match scope.trim().parse() {
            Ok(0) => Self::Off,
            Ok(scope) => Self::Scope(scope),
            Err(_) => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_is_what_the_kernel_writes() {
        for (text, expected) in [
            ("0\n", Yama::Off),
            ("1\n", Yama::Scope(1)),
            ("3\n", Yama::Scope(3)),
            ("", Yama::Unknown),
        ] {
            assert_eq!(Yama::read(text), expected);
        }
    }
}
