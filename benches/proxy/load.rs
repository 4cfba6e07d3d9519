//! Load, and what it reports: wrk for HTTP/1.1, h2load for HTTP/2 and for a fixed rate.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::number;

/// How many connections wrk holds open.
const CONNECTIONS: &str = "32";

/// What one run came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    pub(super) per_second: f64,
    /// Where the tool tells it; otherwise 0.
    pub(super) p99_ms: f64,
    pub(super) requests: f64,
}

#[allow(clippy::cast_precision_loss, reason = "seconds")]
pub(super) fn wrk(url: &str) -> Load {
    let seconds = number("BENCH_SECONDS", 6);
    let mut command = Command::new("wrk");
    command
        .args(["-t1", "-c", CONNECTIONS, "--latency"])
        .arg(format!("-d{seconds}s"))
        .arg(url);
    let text = output(&mut command);
    let value = |label: &str| after(&text, label);
    assert!(
        !text.contains("Non-2xx") && !text.contains("Socket errors"),
        "{text}"
    );
    let per_second: f64 = value("Requests/sec:").parse().unwrap();
    Load {
        per_second,
        p99_ms: milliseconds(&value("99%")),
        requests: per_second * seconds as f64,
    }
}

/// HTTP/2: with prior knowledge where the URL is plain, by ALPN under TLS.
pub(super) fn h2load(url: &str) -> Load {
    let seconds = number("BENCH_SECONDS", 6);
    let mut command = Command::new("h2load");
    command
        .args(["-c", "8", "-m", "8", "-t", "1", "-D"])
        .arg(seconds.to_string())
        .arg(url);
    let text = output(&mut command);
    let Load {
        per_second,
        requests,
        ..
    } = counted(&text);
    assert!(text.contains("Application protocol: h2"), "{text}");
    Load {
        per_second,
        requests,
        p99_ms: 0.0,
    }
}

/// HTTP/1.1 at a fixed rate over 32 connections: what a client waits for where there is no queue.
pub(super) fn steady(folder: &Path, url: &str, per_second: u64) -> Load {
    let (log, seconds) = (folder.join("steady.log"), number("BENCH_SECONDS", 6));
    let _ = fs::remove_file(&log);
    let mut command = Command::new("h2load");
    command
        .args(["--h1", "-t", "1", "-c", CONNECTIONS, "-D"])
        .arg(seconds.to_string())
        .arg(format!("--rps={}", per_second / 32))
        .arg(format!("--log-file={}", log.display()))
        .arg(url);
    let load = counted(&output(&mut command));
    let text = fs::read_to_string(&log).unwrap();
    let micros = text.lines().map(|line| line.rsplit('\t').next().unwrap());
    let mut micros: Vec<f64> = micros.map(|micros| micros.parse().unwrap()).collect();
    micros.sort_by(f64::total_cmp);
    Load {
        p99_ms: micros[micros.len() * 99 / 100] / 1000.0,
        ..load
    }
}

/// What h2load says of a run in which everything was answered with success.
fn counted(text: &str) -> Load {
    let requests = after(text, "requests:");
    let words: Vec<&str> = requests
        .split([' ', ','])
        .filter(|word| !word.is_empty())
        .collect();
    let number = |name: &str| -> f64 {
        let at = words
            .iter()
            .position(|word| *word == name)
            .unwrap_or_else(|| panic!("{text}"));
        words[at - 1].parse().unwrap()
    };
    assert!(
        number("failed") == 0.0 && number("errored") == 0.0 && number("succeeded") > 0.0,
        "{text}"
    );
    let finished = after(text, "finished in");
    let rate = finished
        .split(", ")
        .nth(1)
        .and_then(|rate| rate.strip_suffix(" req/s"));
    Load {
        per_second: rate.unwrap_or_else(|| panic!("{text}")).parse().unwrap(),
        requests: number("succeeded"),
        p99_ms: 0.0,
    }
}

fn output(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    text
}

/// What stands after a label at the beginning of a line.
fn after(text: &str, label: &str) -> String {
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(label));
    line.unwrap_or_else(|| panic!("no {label}: {text}"))
        .trim()
        .to_owned()
}

fn milliseconds(text: &str) -> f64 {
    let number = |text: &str| text.parse::<f64>().unwrap();
    if let Some(us) = text.strip_suffix("us") {
        number(us) / 1000.0
    } else if let Some(ms) = text.strip_suffix("ms") {
        number(ms)
    } else {
        number(text.strip_suffix('s').unwrap()) * 1000.0
    }
}
