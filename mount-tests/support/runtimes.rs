//! Programs whose run-times reserve far more memory than they use.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Program, eventually, of_threads, run};

const ASAN: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(void) {
    char byte, *blocks[256];
    for (int i = 0; i < 256; i++) {
        blocks[i] = malloc(16384 + i);
        memset(blocks[i], 'a' + i % 26, 16384 + i);
        snprintf(blocks[i], 100, "%s+%s+a+secret+%d", "procmemfs", "keeps", 4711);
    }
    printf("ready\n");
    fflush(stdout);
    while (read(0, &byte, 1) > 0) {}
    return blocks[17][3] == 'x';
}
"#;

const JAVA: &str = r#"
public class Waits {
    static byte[] secret;
    public static void main(String[] words) throws Exception {
        secret = String.join("+", "procmemfs", "keeps", "a", "secret", "4711").getBytes();
        System.out.println("ready");
        System.in.read();
    }
}
"#;

const NODE: &str = "
const secret = Buffer.from(['procmemfs', 'keeps', 'a', 'secret', '4711'].join('+'));
console.log('ready');
process.stdin.on('data', () => console.log(secret.length));
";

impl Program {
    /// A program under AddressSanitizer, whose shadow takes up 20 TiB.
    #[track_caller]
    pub(crate) fn asan(dir: &Path) -> Self {
        let (source, binary) = (dir.join("asan.c"), dir.join("asan"));
        std::fs::write(&source, ASAN).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-fsanitize=address", "-O1", "-o"]);
        run(cc.arg(&binary).arg(source)).success();
        Self::talking(Command::new(binary))
    }

    /// A Java virtual machine.
    #[track_caller]
    pub(crate) fn java(dir: &Path) -> Self {
        let source = dir.join("Waits.java");
        std::fs::write(&source, JAVA).unwrap();
        let mut javac = Command::new("javac");
        run(javac.arg("-d").arg(dir).arg(source)).success();
        let mut java = Command::new("java");
        java.args(["-Xmx256m", "-cp"]).arg(dir).arg("Waits");
        Self::talking(java)
    }

    /// Node.js.
    #[track_caller]
    pub(crate) fn node() -> Self {
        let mut node = Command::new("node");
        node.args(["-e", NODE]);
        Self::talking(node)
    }

    /// Stops it, so that its memory stays as it is.
    #[track_caller]
    pub(crate) fn stop(&self) {
        kill(Pid::from_raw(self.pid() as i32), Signal::SIGSTOP).unwrap();
        eventually("all threads have stopped", || {
            let statuses = of_threads(self.pid(), "status");
            let is_stopped = |status: &String| status.contains("State:\tT");
            statuses.iter().all(is_stopped).then_some(())
        });
    }
}
