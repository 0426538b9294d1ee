//! What a test needs of the machine, and what happens where it is missing: the
//! test counts as ignored, and as failed where nothing may be skipped.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libtest_mimic::{Failed, Trial};

/// Something that a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// `/dev/fuse`, and `fusermount3` unless root.
    Fuse,
    /// User id 0.
    Root,
    /// Processes of the same user may be read without their consent.
    Ptrace,
    /// A program in `PATH` or in the directories of the administrator.
    Tool(&'static str),
    /// A Python that has this module.
    Python(&'static str),
    /// A C compiler that makes 32-bit programs.
    Cc32,
    /// A C compiler with AddressSanitizer.
    Asan,
    /// Memory cgroups that can be made.
    MemoryCgroup,
    /// Cgroups of version 2 that can be made, and frozen.
    Freezer,
    /// Control groups that can be made.
    Cgroup,
    /// The means to become a plain user who can mount.
    PlainUser,
    /// The file system exerciser.
    Fsx,
    /// Mounts may be served over io_uring.
    Rings,
    /// Others may be let in, and the kernel judges them as it would by themselves.
    Judging,
    /// Cores go into files of the directory in which a process runs.
    CoreFiles,
}

impl Need {
    /// What is missing, in words, if it is.
    fn missing(self) -> Option<String> {
        match self {
            Self::Fuse => {
                let fuse = Path::new("/dev/fuse").exists();
                let can_mount = is_root() || tool("fusermount3").is_some();
                (!fuse || !can_mount).then(|| "/dev/fuse and fusermount3".into())
            }
            Self::Root => (!is_root()).then(|| "root".into()),
            Self::Ptrace => {
                (!is_root() && yama() != "0").then(|| "root or kernel.yama.ptrace_scope = 0".into())
            }
            Self::Tool(name) => tool(name)
                .is_none()
                .then(|| format!("the program `{name}`")),
            Self::Python(module) => python_with(module)
                .is_none()
                .then(|| format!("the Python module `{module}`")),
            Self::Cc32 => (!can_build_32_bit()).then(|| "`cc -m32` (package gcc-multilib)".into()),
            Self::Freezer => super::FrozenGroup::root()
                .is_none()
                .then(|| "cgroups of version 2 that can be made".into()),
            Self::Asan => {
                (!can_build_asan()).then(|| "`cc -fsanitize=address` (package gcc)".into())
            }
            Self::MemoryCgroup => super::MemoryGroup::new(1 << 30)
                .is_err()
                .then(|| "a memory cgroup hierarchy".into()),
            Self::Cgroup => super::ProcessGroup::new()
                .is_err()
                .then(|| "a writable cgroup hierarchy below /sys/fs/cgroup".into()),
            Self::PlainUser => {
                let tools = ["setpriv", "unshare", "fusermount3"];
                let possible = is_root() && tools.iter().all(|name| tool(name).is_some());
                (!possible).then(|| "root, `setpriv`, `unshare` and `fusermount3`".into())
            }
            Self::Judging => {
                let tools = ["setpriv", "unshare", "cc"];
                let possible = is_root() && tools.iter().all(|name| tool(name).is_some());
                (!possible || yama() != "0").then(|| {
                    "root, `setpriv`, `unshare`, `cc` and kernel.yama.ptrace_scope = 0".into()
                })
            }
            Self::CoreFiles => {
                let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern");
                let is_name = pattern.is_ok_and(|pattern| !pattern.starts_with(['|', '/', '@']));
                let text = "a core_pattern that is a plain name (sysctl kernel.core_pattern=core)";
                (!is_name).then(|| text.into())
            }
            Self::Rings => {
                let text = format!("FUSE over io_uring (Linux 6.14; echo Y > {RINGS})");
                (!has_rings() && std::env::var_os("PROCMEMFS_NO_RINGS").is_none()).then_some(text)
            }
            Self::Fsx => fsx()
                .is_none()
                .then(|| "`fsx` (cargo install fsx --version 0.3.2)".into()),
        }
    }
}

const RINGS: &str = "/sys/module/fuse/parameters/enable_uring";

/// Whether mounts may be served over io_uring. CI says by `PROCMEMFS_NO_RINGS` that its machine cannot have that.
pub(crate) fn has_rings() -> bool {
    std::fs::read_to_string(RINGS).is_ok_and(|setting| setting.trim() == "Y")
}

/// Whether all mounts are served over io_uring, but for those that say otherwise.
pub(crate) fn is_over_rings() -> bool {
    std::env::var("PROCMEMFS_OPTIONS").is_ok_and(|options| options.contains("io_uring=on"))
}

/// What a mount says whose daemon is gone: the last one over io_uring, of a request that was on its way to a thread.
pub(crate) const GONE: [i32; 4] = [
    libc::ENOTCONN,
    libc::ECONNABORTED,
    libc::EIO,
    libc::ECANCELED,
];

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn yama() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    text.map_or_else(|_| "0".into(), |text| text.trim().into())
}

/// Where a program is.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// A Python interpreter that has `module`: that in `PATH`, or the system's, for which packages of the system are.
pub(crate) fn python_with(module: &str) -> Option<PathBuf> {
    let pythons = [tool("python3"), Some("/usr/bin/python3".into())];
    pythons.into_iter().flatten().find(|python| {
        let mut import = std::process::Command::new(python);
        import.args(["-c", &format!("import {module}")]);
        import.output().is_ok_and(|output| output.status.success())
    })
}

/// Where `fsx` is: named by `PROCMEMFS_FSX`, in `PATH`, or below the target
/// directory, where CI installs it.
pub(crate) fn fsx() -> Option<PathBuf> {
    let named = std::env::var_os("PROCMEMFS_FSX").map(PathBuf::from);
    let installed = super::built_binary()
        .parent()
        .and_then(Path::parent)
        .map(|dir| dir.join("tools/bin/fsx"));
    named
        .or_else(|| tool("fsx"))
        .or(installed)
        .filter(|path| path.is_file())
}

fn can_build_32_bit() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| can_build("-m32"))
}

fn can_build_asan() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| can_build("-fsanitize=address"))
}

/// Whether the compiler makes programs with `flag`.
fn can_build(flag: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("empty.c");
    std::fs::write(
        &source,
        "#include <stdio.h>\nint main(void) { return 0; }\n",
    )
    .unwrap();
    std::process::Command::new("cc")
        .args([flag, "-o"])
        .arg(dir.path().join("empty"))
        .arg(source)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// A test, and what it needs.
#[derive(Debug)]
pub(crate) struct Test {
    name: String,
    needs: Vec<Need>,
    body: fn(),
}

impl Test {
    /// A test named after the function.
    pub(crate) fn new(path: &str, needs: &[Need], body: fn()) -> Self {
        Self {
            name: path.trim_start_matches("mount::").to_string(),
            needs: needs.to_vec(),
            body,
        }
    }

    /// The test as the harness runs it.
    pub(crate) fn into_trial(self) -> Trial {
        let missing: Vec<String> = self
            .needs
            .iter()
            .filter_map(|need| need.missing())
            .collect();
        let Self { name, body, .. } = self;
        if missing.is_empty() {
            let shown = name.clone();
            return Trial::test(name, move || super::run::caught(&shown, body));
        }
        let missing = missing.join(", ");
        let strict = ["CI", "PROCMEMFS_TESTS_NOTHING_SKIPPED"]
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        if strict {
            return Trial::test(name, move || -> Result<(), Failed> {
                Err(format!("nothing may be skipped here, but this needs {missing}").into())
            });
        }
        eprintln!("SKIPPED {name}: needs {missing}");
        Trial::test(name, || Ok(())).with_ignored_flag(true)
    }
}

/// Lists the tests of a module: `tests![name, other: [Need::Root]]`.
macro_rules! tests {
    ($($name:ident $(: [$($need:expr),* $(,)?])?),* $(,)?) => {
        /// The tests of this module.
        pub(crate) fn tests() -> Vec<$crate::support::Test> {
            use $crate::support::Need;
            vec![$($crate::support::Test::new(
                concat!(module_path!(), "::", stringify!($name)),
                &[Need::Fuse, $($($need),*)?],
                $name,
            )),*]
        }
    };
}
pub(crate) use tests;
