//! A server that a test does not own: a shell starts and stops it as it is told over a pipe, and when the pipe ends, because
//! the tests' process has, in whatever way, the shell kills the server and removes its directory. A value that is
//! shared by tests is never dropped, so nothing less would do.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;

/// `$dir` is the server's directory, `$server` what runs; `prelude` and `command` come from the server's file.
const SUPERVISOR: &str = r#"
trap '' INT HUP
server=
beside=
end() { [ -z "$server" ] || { kill -KILL $server; wait $server; server=; } 2>/dev/null; }
PRELUDE
while read -r word; do
    case $word in
        start) COMMAND </dev/null >>"$dir/log" 2>&1 & server=$! ;;
        stop) end ;;
    esac
    echo "$word" >>"$dir/done"
done
end
[ -z "$beside" ] || kill -KILL $beside 2>/dev/null
rm -rf "$dir"
"#;

pub struct Supervised {
    directory: PathBuf,
    /// Closed when this is dropped, or with the process.
    orders: Mutex<ChildStdin>,
    shell: Child,
}

impl Supervised {
    /// `prelude` may start a process beside the server and put its id into `$beside`; `command` becomes the server
    /// (it has to `exec` down to it).
    pub fn new(
        directory: PathBuf,
        variables: &[(&str, String)],
        prelude: &str,
        command: &str,
    ) -> Self {
        let script = SUPERVISOR
            .replace("PRELUDE", prelude)
            .replace("COMMAND", command);
        let mut shell = Command::new("sh")
            .args(["-c", &script])
            .env("dir", &directory)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let orders = Mutex::new(shell.stdin.take().unwrap());
        Self {
            directory,
            orders,
            shell,
        }
    }

    pub fn start(&self) {
        self.order("start");
    }

    /// `kill -9`.
    pub fn stop(&self) {
        self.order("stop");
    }

    fn order(&self, word: &str) {
        let count = || {
            std::fs::read_to_string(self.directory.join("done")).map_or(0, |it| it.lines().count())
        };
        let mut orders = self.orders.lock().unwrap();
        let before = count();
        writeln!(orders, "{word}").unwrap();
        super::until("the supervisor obeys", || (count() > before).then_some(()));
    }

    /// Whatever the server said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // The shell ends at the end of its input; this one may wait for it.
        let _ = self.orders.get_mut().map(|orders| writeln!(orders, "stop"));
        let _ = self.shell.try_wait();
    }
}
