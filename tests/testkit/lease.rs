//! A file that hangs when it is opened: another process has a lease on it (fcntl(2), `F_SETLEASE`), and
//! gives it up when this is dropped.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Takes a write lease, says so, and says each time that it is to give it up.
const SCRIPT: &str = r#"
    $| = 1;
    $SIG{IO} = sub { print "asked\n" };
    open(FILE, "+<", $ARGV[0]) or die "open: $!";
    fcntl(FILE, 1024, 1) or die "lease: $!";
    print "held\n";
    1 while <STDIN>;
"#;

/// A lease on a file. The kernel takes it away after a while (`fs.lease-break-time`, 45 s).
pub struct Lease {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Lease {
    /// Takes it.
    pub fn on(path: &Path) -> Lease {
        let mut child = Command::new("perl")
            .args(["-e", SCRIPT])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("perl starts");
        let said = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut lease = Lease { child, said };
        lease.wait_for("held");
        lease
    }

    /// Waits until somebody hangs who opens the file.
    pub fn wait_for_victim(&mut self) {
        self.wait_for("asked");
    }

    fn wait_for(&mut self, wanted: &str) {
        let line = self.said.next().expect("it says something").expect("text");
        assert_eq!(line, wanted);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It has nothing else to wait for.
        let _ = self.child.wait();
    }
}
