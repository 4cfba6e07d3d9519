//! A child process whose output is read line by line and which is killed with its test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::PATIENCE;

pub struct Process {
    child: Child,
    lines: Receiver<String>,
    /// Everything the process said, for the message of a test that fails.
    log: Arc<Mutex<String>>,
    name: String,
}

impl Process {
    /// Starts `command`; `install` names the package that holds it.
    pub fn start(command: &mut Command, install: &str) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.unwrap_or_else(|error| {
            panic!("cannot run {name}: {error}. Install {install}, or run ./test.sh which does")
        });
        let (sender, lines) = channel();
        let log = Arc::new(Mutex::new(String::new()));
        let outputs: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for output in outputs {
            let (sender, log) = (sender.clone(), log.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let mut log = log.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                    drop(log);
                    let _ = sender.send(line);
                }
            });
        }
        Self {
            child,
            lines,
            log,
            name,
        }
    }

    /// Waits for a line for which `wanted` gives a value.
    pub fn expect_line<T>(&mut self, what: &str, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    if let Some(value) = wanted(&line) {
                        return value;
                    }
                }
                Err(_) => panic!(
                    "{} did not say {what}; it said:\n{}",
                    self.name,
                    self.said()
                ),
            }
        }
    }

    pub fn said(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the process reads.
    pub fn stdin(&mut self) -> &mut impl std::io::Write {
        self.child.stdin.as_mut().unwrap()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM and waits for the end; gives the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.exit_code()
    }

    /// Takes the processor from it: its sockets stay open, and it does nothing.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Gives it back.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success(), "SIG{name} to {}", self.name);
    }

    /// Waits for the end; gives the exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end; it said:\n{}",
                self.name,
                self.said()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- {} said:\n{}----", self.name, self.said());
        }
        self.kill();
    }
}
