//! A real NATS server, which speaks MQTT also in WebSockets, on free ports and in a directory of its own.

use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use tempfile::TempDir;

use super::certificates::TlsFiles;
use super::process::Process;
use super::{free_port, until};

pub struct Nats {
    /// Where its WebSocket listens; MQTT is at the path `/mqtt`.
    pub websocket: u16,
    _process: Process,
    _directory: TempDir,
}

impl Nats {
    /// With TLS on its WebSocket where there are `tls` files.
    pub fn start(tls: Option<&TlsFiles>) -> Self {
        let directory = TempDir::new().unwrap();
        let (client, mqtt, websocket) = (free_port(), free_port(), free_port());
        let tls = tls.map_or("no_tls: true".to_owned(), |files| {
            let (certificate, key) = (files.certificate.display(), files.key.display());
            format!("tls {{ cert_file: \"{certificate}\", key_file: \"{key}\" }}")
        });
        let store = directory.path().join("store");
        let settings = format!(
            "listen: \"127.0.0.1:{client}\"\nserver_name: tested\n\
             jetstream {{ store_dir: \"{}\" }}\n\
             mqtt {{ listen: \"127.0.0.1:{mqtt}\" }}\n\
             websocket {{ listen: \"127.0.0.1:{websocket}\", {tls} }}\n",
            store.display()
        );
        let file = directory.path().join("nats.conf");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new("nats-server");
        command.arg("-c").arg(&file);
        let mut process = Process::start(&mut command, "nats-server");
        process.expect_line("`Server is ready`", |line| {
            line.contains("Server is ready").then_some(())
        });
        until("NATS listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, websocket)).ok()
        });
        Self {
            websocket,
            _process: process,
            _directory: directory,
        }
    }
}
