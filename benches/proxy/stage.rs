//! The servers that take part, and what one of them used.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::load::Load;
use super::support::{Running, ask, free_port, listening, local, node, wait};

pub(super) fn nginx(folder: &Path, upstream: u16) -> (Running, u16) {
    let port = free_port();
    let conf = format!(
        "daemon off; master_process off; pid {0}/nginx.pid; error_log /dev/null;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f;\n\
         uwsgi_temp_path {0}/u; scgi_temp_path {0}/s; keepalive_requests 100000000;\n\
         upstream o {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://o; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; }} }} }}\n",
        folder.display(),
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, conf).unwrap();
    let running = Running::start(
        Command::new("nginx")
            .arg("-c")
            .arg(&path)
            .arg("-p")
            .arg(folder),
    );
    listening(port);
    (running, port)
}

/// A node in front of what is measured with.
pub(super) struct Recorder {
    pub(super) process: Running,
    pub(super) port: u16,
    api: u16,
}

impl Recorder {
    /// A node that passes HTTP on to the origin; `Forward` copies nothing. `tls` has certificate and key.
    pub(super) fn http(
        folder: &Path,
        name: &str,
        mode: &str,
        origin: u16,
        broker: u16,
        tls: Option<&Path>,
    ) -> Self {
        let port = free_port();
        let mut http = local(port);
        http["downstream"] = format!("http://127.0.0.1:{origin}").into();
        if let Some(folder) = tls {
            let (certificate, key) = super::peers::identity(folder);
            http["tls"] = serde_json::json!({ "tls_cert": certificate, "tls_key": key });
        }
        Self::start(
            folder,
            name,
            mode,
            port,
            &serde_json::json!({ "http": http }),
            broker,
        )
    }

    /// A node that passes TCP on.
    pub(super) fn tcp(folder: &Path, name: &str, mode: &str, source: u16, broker: u16) -> Self {
        let port = free_port();
        let mut tcp = local(port);
        tcp["downstream"] = format!("127.0.0.1:{source}").into();
        let section = serde_json::json!({ "tcp": tcp });
        Self::start(folder, name, mode, port, &section, broker)
    }

    fn start(
        folder: &Path,
        name: &str,
        mode: &str,
        port: u16,
        section: &serde_json::Value,
        broker: u16,
    ) -> Self {
        let api = free_port();
        let mut config = section.clone();
        config["mode"] = mode.into();
        config["node"] = name.into();
        config["api"] = local(api);
        config["store"] = serde_json::json!({ "path": "data" });
        if mode == "Record" {
            config["peer"] = local(broker);
        }
        let process = node(folder, name, &config);
        listening(port);
        Self { process, port, api }
    }

    pub(super) fn status(&self) -> serde_json::Value {
        ask(self.api, "/api/status")["ledger"]["recorder"].clone()
    }

    #[allow(clippy::cast_precision_loss, reason = "far under 2^53")]
    pub(super) fn captured(&self) -> f64 {
        self.status()["captured"].as_u64().unwrap_or(0) as f64
    }

    /// Waits until the broker has, and the player has stored, all that was captured; tells how long it took.
    pub(super) fn drained(&self) -> Duration {
        let start = Instant::now();
        wait("an empty spool", || {
            let status = self.status();
            let captured = status["captured"].as_u64()?;
            let stored = status["players"][0]["watermark"].as_u64().unwrap_or(0);
            (stored == captured).then_some(())
        });
        start.elapsed()
    }
}

/// What one server did in one round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) per_second: f64,
    pub(super) p99_ms: f64,
    pub(super) cpu_us: f64,
}

impl Measured {
    /// Runs the load against a server, and lets it settle before its CPU time is read.
    pub(super) fn of(server: &Running, load: impl FnOnce() -> Load, settle: impl FnOnce()) -> Self {
        let before = server.cpu();
        let load = load();
        settle();
        Self {
            per_second: load.per_second,
            p99_ms: load.p99_ms,
            cpu_us: (server.cpu() - before) / load.requests * 1e6,
        }
    }

    /// Microseconds of CPU per request are milliseconds per 1,000.
    pub(super) fn show(&self, name: &str) {
        let Self {
            per_second,
            p99_ms,
            cpu_us,
        } = self;
        print!("  {name:<10} {per_second:>7.0}/s   {cpu_us:>7.1} ms CPU per 1,000 requests");
        match *p99_ms > 0.0 {
            true => println!("   p99 {p99_ms:>6.2} ms"),
            false => println!(),
        }
    }
}
