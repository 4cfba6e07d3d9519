//! A broker that only acknowledges: it looks at the first bytes of each packet, skips the rest, and answers all that
//! one read brought with one write. Plain threads and blocking sockets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

/// Starts it in this process; returns its port.
pub(crate) fn start() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

/// Ends where the client closes, in whatever way it does.
fn serve(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 512 << 10];
    let (mut filled, mut skip) = (0, 0);
    let mut answers = Vec::new();
    loop {
        match stream.read(&mut buffer[filled..]) {
            Ok(count) if count > 0 => filled += count,
            _ => return,
        }
        let rest = acknowledge(&buffer[..filled], &mut skip, &mut answers);
        buffer.copy_within(filled - rest..filled, 0);
        filled = rest;
        if !answers.is_empty() && stream.write_all(&answers).is_err() {
            return;
        }
        answers.clear();
    }
}

/// Answers the packets whose beginning is in `bytes`; returns how many bytes at the end are not looked at yet.
/// `skip` is what is still to come of a packet that was answered already.
fn acknowledge(mut bytes: &[u8], skip: &mut usize, answers: &mut Vec<u8>) -> usize {
    loop {
        let now = (*skip).min(bytes.len());
        bytes = &bytes[now..];
        *skip -= now;
        let Some((header, remaining)) = header(bytes) else {
            return bytes.len();
        };
        let body = &bytes[header..];
        // The topic is short: everything that matters stands in the first bytes.
        if body.len() < remaining.min(64) {
            return bytes.len();
        }
        match bytes[0] >> 4 {
            1 => answers.extend([0x20, 2, 0, 0]),
            3 => {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let kind = match bytes[0] & 0b110 {
                    0b010 => 0x40,
                    0b100 => 0x50,
                    _ => 0,
                };
                if kind != 0 {
                    answers.extend([kind, 2, body[2 + topic], body[3 + topic]]);
                }
            }
            6 => answers.extend([0x70, 2, body[0], body[1]]),
            12 => answers.extend([0xd0, 0]),
            _ => {}
        }
        *skip = header + remaining;
    }
}

/// Length of the fixed header, and what it announces.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut remaining = 0;
    for (at, &byte) in bytes.iter().enumerate().skip(1) {
        remaining |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return Some((at + 1, remaining));
        }
    }
    None
}
