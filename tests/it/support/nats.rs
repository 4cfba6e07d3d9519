//! A real NATS server with JetStream, which its MQTT side needs: over TCP and in WebSockets, on free ports, in a
//! directory of its own, and able to go away and come back.

use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use tempfile::TempDir;

use super::certificates::{self, TlsFiles};
use super::process::Process;
use super::{quiet_port, until};

pub struct Nats {
    directory: TempDir,
    process: Option<Process>,
    /// Of MQTT over TCP.
    pub port: u16,
    /// Of MQTT in WebSockets, at the path `/mqtt`.
    pub websocket: u16,
    /// Where it speaks TLS, on both.
    pub tls: Option<TlsFiles>,
}

/// What clients of the MQTT side speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Plain,
    Tls,
}

impl Nats {
    pub fn start(speaks: Speaks) -> Self {
        let directory = TempDir::new().unwrap();
        let tls = (speaks == Speaks::Tls).then(|| certificates::make(directory.path(), "NATS's"));
        let (own, port, websocket) = (quiet_port(), quiet_port(), quiet_port());
        let files = tls.as_ref().map(|files| {
            let (certificate, key) = (files.certificate.display(), files.key.display());
            format!("tls {{ cert_file: \"{certificate}\", key_file: \"{key}\" }}")
        });
        let (mqtt_tls, websocket_tls) = match &files {
            Some(files) => (files.as_str(), files.as_str()),
            None => ("", "no_tls: true"),
        };
        // Larger messages than its default of 1 MiB; and repeats sooner than after 30 s.
        let config = format!(
            "server_name: tests\nhost: 127.0.0.1\nport: {own}\nmax_payload: 64MB\nmax_pending: 256MB\n\
             jetstream {{ store_dir: {:?} }}\n\
             mqtt {{ host: 127.0.0.1, port: {port}, ack_wait: \"5s\", {mqtt_tls} }}\n\
             websocket {{ host: 127.0.0.1, port: {websocket}, {websocket_tls} }}\n",
            directory.path().join("jetstream"),
        );
        std::fs::write(directory.path().join("nats.conf"), config).unwrap();
        let mut nats = Self {
            directory,
            process: None,
            port,
            websocket,
            tls,
        };
        nats.launch();
        nats
    }

    pub fn launch(&mut self) {
        let mut command = Command::new("nats-server");
        command
            .arg("-c")
            .arg(self.directory.path().join("nats.conf"));
        let mut process = Process::start(&mut command, "nats-server");
        process.expect_line("`Server is ready`", |line| {
            line.contains("Server is ready").then_some(())
        });
        self.process = Some(process);
        for port in [self.port, self.websocket] {
            until("NATS listens", || {
                TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
            });
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }
}
