//! httpbin, an HTTP origin of great breadth, as a process.

use std::path::PathBuf;
use std::process::Command;

use super::process::Process;

/// The Python that has the peers of tests/requirements.txt.
pub fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("QPROXY_TEST_PYTHON") {
        return python.into();
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let venv = target.join("test-venv/bin/python");
    if venv.exists() {
        venv
    } else {
        "python3".into()
    }
}

/// Fails with what to do where a Python package of tests/requirements.txt is missing.
pub fn require(module: &str) {
    let found = Command::new(python())
        .args(["-c", &format!("import {module}")])
        .output();
    assert!(
        found.is_ok_and(|output| output.status.success()),
        "Python package {module} is missing: run ./test.sh, which installs it, \
         or pip install -r tests/requirements.txt"
    );
}

pub struct Httpbin {
    process: Process,
    pub port: u16,
}

impl Httpbin {
    /// Starts it on `port`; 0 takes a free one.
    pub fn start(port: u16) -> Self {
        require("httpbin");
        require("waitress");
        let listen = format!("--listen=127.0.0.1:{port}");
        let mut command = Command::new(python());
        command.args(["-m", "waitress", &listen, "--threads=16", "httpbin:app"]);
        let mut process = Process::start(&mut command, "python3-venv");
        let port = process.expect_line("where it serves", |line| {
            line.split("Serving on http://127.0.0.1:")
                .nth(1)?
                .trim()
                .parse()
                .ok()
        });
        Self { process, port }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn stop(&mut self) {
        self.process.kill();
    }
}
