//! A program on a terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};

use super::{eventually, mount::UNKNOWN_CALLS};

/// What a terminal does with what is typed and written.
type Modes = (
    libc::tcflag_t,
    libc::tcflag_t,
    libc::tcflag_t,
    libc::tcflag_t,
);

/// A pseudo-terminal, and the program that runs on it. The program is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Terminal {
    child: Child,
    /// Where keys are typed.
    keys: File,
    /// Kept, so that its modes can be asked for after the end.
    line: OwnedFd,
    written: Arc<Mutex<Written>>,
    before: Modes,
}

/// What the program wrote, and what a terminal shows of that.
struct Written {
    bytes: Vec<u8>,
    screen: vt100::Parser,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.screen.screen().contents())
    }
}

impl Terminal {
    /// Starts a program on a terminal of this size.
    #[track_caller]
    pub(crate) fn start(command: &mut Command, columns: u16, lines: u16) -> Self {
        let size = libc::winsize {
            ws_row: lines,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let (mut ours, mut theirs) = (-1, -1);
        // SAFETY: both numbers and the size are our own, and the other two pointers may be null.
        let made = unsafe {
            let (name, modes) = (std::ptr::null_mut(), std::ptr::null());
            libc::openpty(&mut ours, &mut theirs, name, modes, &size)
        };
        assert_eq!(made, 0, "openpty: {}", std::io::Error::last_os_error());
        for end in [ours, theirs] {
            // Else a program that another test starts keeps it for as long as it runs.
            // SAFETY: it was opened just now, and no pointer is passed.
            unsafe { libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: it was opened just now, and is nobody else's.
        let keys = unsafe { File::from_raw_fd(ours) };
        // SAFETY: the same.
        let line = unsafe { OwnedFd::from_raw_fd(theirs) };
        let end = || line.try_clone().unwrap();
        let before = modes_of(&line);
        command.stdin(end()).stdout(end()).stderr(end());
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command.env(UNKNOWN_CALLS.0, UNKNOWN_CALLS.1);
        let lead = || {
            // SAFETY: no pointer is passed.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // SAFETY: no pointer is passed.
            unsafe { libc::setsid() };
            // SAFETY: no pointer is passed.
            unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
            Ok(())
        };
        // SAFETY: the closure makes system calls alone and allocates nothing.
        let child = unsafe { command.pre_exec(lead) }.spawn().unwrap();
        let of = |length| NonZero::new(length).expect("a terminal has a size");
        let written = Arc::new(Mutex::new(Written {
            bytes: Vec::new(),
            screen: vt100::Parser::new(of(lines), of(columns), 0),
        }));
        let (mut screen, seen) = (keys.try_clone().unwrap(), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal that nobody writes to any more is an error.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let mut seen = seen.lock().unwrap();
                seen.bytes.extend_from_slice(&bytes[..count]);
                seen.screen.process(&bytes[..count]);
            }
        });
        Self {
            child,
            keys,
            line,
            written,
            before,
        }
    }

    /// All that was written so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap().bytes).into_owned()
    }

    /// What is seen now.
    pub(crate) fn screen(&self) -> String {
        self.written.lock().unwrap().screen.screen().contents()
    }

    /// Waits until something was written.
    #[track_caller]
    pub(crate) fn wait_for(&self, part: &str) {
        eventually(part, || self.text().contains(part).then_some(()));
    }

    /// Waits until something is seen.
    #[track_caller]
    pub(crate) fn wait_to_see(&self, part: &str) {
        eventually(part, || self.screen().contains(part).then_some(()));
    }

    /// Types.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The program's number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the program's end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the end of the program", || self.child.try_wait().unwrap())
    }

    /// Fails unless the terminal is as it was before: its modes, and what it shows.
    #[track_caller]
    pub(crate) fn is_restored(&self) {
        assert!(modes_of(&self.line) == self.before, "modes of the terminal");
        self.wait_for("\x1b[?1049l");
        // The cursor comes back with the next bytes.
        eventually("the screen and the cursor of before", || {
            let written = self.written.lock().unwrap();
            let screen = written.screen.screen();
            (!screen.alternate_screen() && !screen.hide_cursor()).then_some(())
        });
    }
}

/// The modes of a terminal.
fn modes_of(line: &OwnedFd) -> Modes {
    use std::os::fd::AsRawFd;
    // SAFETY: all of it are numbers.
    let mut modes: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: `modes` is our own.
    let found = unsafe { libc::tcgetattr(line.as_raw_fd(), &mut modes) };
    assert_eq!(found, 0, "{}", std::io::Error::last_os_error());
    (modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
