//! NATS as an MQTT broker over TCP, with JetStream, which its MQTT side needs: on free ports, in a directory of its own,
//! and able to go away and come back.

use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use tempfile::TempDir;

use super::certificates::{self, TlsFiles};
use super::process::Process;
use super::{free_port, until};

pub struct NatsBroker {
    directory: TempDir,
    process: Option<Process>,
    pub port: u16,
    pub tls: Option<TlsFiles>,
}

/// What clients of the MQTT side speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Plain,
    Tls,
}

impl NatsBroker {
    pub fn start(transport: Transport) -> Self {
        let directory = TempDir::new().unwrap();
        let tls =
            (transport == Transport::Tls).then(|| certificates::make(directory.path(), "NATS's"));
        let (port, own) = (free_port(), free_port());
        let files = tls.as_ref().map(|files| {
            let (certificate, key) = (files.certificate.display(), files.key.display());
            format!(
                "tls {{ cert_file: {certificate:?}, key_file: {key:?} }}",
                certificate = certificate.to_string(),
                key = key.to_string()
            )
        });
        // Larger messages than its default of 1 MiB; and repeats sooner than after 30 s.
        let config = format!(
            "server_name: tests\nhost: 127.0.0.1\nport: {own}\nmax_payload: 64MB\nmax_pending: 256MB\n\
             jetstream {{ store_dir: {:?} }}\n\
             mqtt {{ host: 127.0.0.1, port: {port}, ack_wait: \"5s\", {} }}\n",
            directory.path().join("jetstream"),
            files.unwrap_or_default(),
        );
        std::fs::write(directory.path().join("nats.conf"), config).unwrap();
        let mut nats = Self {
            directory,
            process: None,
            port,
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
        self.process = Some(Process::start(&mut command, "nats-server"));
        let port = self.port;
        until("NATS listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }
}
