//! What real networks put between a client and its server: SOCKS5 and HTTP proxies, and nginx that ends TLS.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::certificates::TlsFiles;
use super::process::Process;
use super::{free_port, until};

/// One of them, on a free port.
pub struct Tunnel {
    pub port: u16,
    _process: Process,
    _directory: TempDir,
}

impl Tunnel {
    /// microsocks, which wants these credentials where there are some.
    pub fn socks5(credentials: Option<(&str, &str)>) -> Self {
        Self::start("microsocks", "microsocks", |command, port, _| {
            command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
            if let Some((user, password)) = credentials {
                command.args(["-u", user, "-P", password]);
            }
        })
    }

    /// tinyproxy, which wants these credentials where there are some, and lets through to `allowed` ports only.
    pub fn http(credentials: Option<(&str, &str)>, allowed: &[u16]) -> Self {
        Self::start("tinyproxy", "tinyproxy-bin", |command, port, directory| {
            let mut settings =
                format!("Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\n");
            for port in allowed {
                settings.push_str(&format!("ConnectPort {port}\n"));
            }
            if let Some((user, password)) = credentials {
                settings.push_str(&format!("BasicAuth {user} {password}\n"));
            }
            let file = directory.join("tinyproxy.conf");
            std::fs::write(&file, settings).unwrap();
            command.arg("-d").arg("-c").arg(file);
        })
    }

    /// nginx, which ends TLS and hands WebSockets at `path` on to `/mqtt` of a server on this machine.
    pub fn nginx(files: &TlsFiles, path: &str, server: u16) -> Self {
        Self::start("nginx", "nginx-light", |command, port, directory| {
            let (certificate, key) = (files.certificate.display(), files.key.display());
            let temporary = directory.display();
            let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {temporary}/{kind};\n"))
                .concat();
            let settings = format!(
                "worker_processes 1;\npid {temporary}/pid;\ndaemon off;\nuser root;\n\
                 error_log {temporary}/error.log;\nevents {{}}\nhttp {{\n{paths}access_log off;\n\
                 server {{\nlisten 127.0.0.1:{port} ssl;\n\
                 ssl_certificate {certificate};\nssl_certificate_key {key};\n\
                 location = {path} {{\nproxy_pass http://127.0.0.1:{server}/mqtt;\n\
                 proxy_http_version 1.1;\nproxy_set_header Upgrade $http_upgrade;\n\
                 proxy_set_header Connection upgrade;\nproxy_set_header Host $host;\n}}\n}}\n}}\n"
            );
            let file = directory.join("nginx.conf");
            std::fs::write(&file, settings).unwrap();
            command.arg("-p").arg(directory).arg("-c").arg(file);
        })
    }

    fn start(program: &str, package: &str, set: impl Fn(&mut Command, u16, &Path)) -> Self {
        let directory = TempDir::new().unwrap();
        let port = free_port();
        let mut command = Command::new(program);
        set(&mut command, port, directory.path());
        let process = Process::start(&mut command, package);
        until(&format!("{program} listens"), || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        Self {
            port,
            _process: process,
            _directory: directory,
        }
    }
}
