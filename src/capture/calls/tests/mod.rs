//! Conversations as real clients and servers have them, whole and in every split.

mod redis;
mod postgresql;
mod mysql;
mod http;
mod tls;
mod limits;

use proptest::prelude::{any, prop, proptest};

use super::fuzzing::{conversation, listen};
use super::*;
use crate::record::Direction::{Client, Server};

type Said<'a> = (Direction, &'a [u8]);

/// What a call came to, in short: its text, and after `!` the error or after `?` that there was no answer.
fn calls(application: &Application) -> Vec<String> {
    let short = |call: &crate::record::Call| match &call.answer {
        None => format!("{} ?", call.text),
        Some(answer) => match &answer.error {
            None => call.text.to_string(),
            Some(error) => format!("{} !{error}", call.text),
        },
    };
    application.calls.iter().map(short).collect()
}

/// Listens to it whole, in single bytes, and in two parts cut at every place; gives what all of them tell.
fn heard(said: &[Said<'_>]) -> Option<Application> {
    let whole = listen(said, usize::MAX);
    assert_eq!(whole, listen(said, 1), "in single bytes");
    for (at, (direction, bytes)) in said.iter().enumerate() {
        for cut in 1..bytes.len().min(400) {
            let mut split = said.to_vec();
            split[at] = (*direction, &bytes[..cut]);
            split.insert(at + 1, (*direction, &bytes[cut..]));
            assert_eq!(whole, listen(&split, usize::MAX), "part {at} cut at {cut}");
        }
        // What breaks off tells no more than what is whole.
        if let (Some(whole), Some(part)) = (&whole, listen(&said[..at], usize::MAX)) {
            assert!(part.count <= whole.count);
        }
    }
    whole
}

fn application(said: &[Said<'_>]) -> Application {
    heard(said).expect("it is told apart")
}

/// A command as Redis clients send it.
fn resp(words: &[&str]) -> Vec<u8> {
    let mut sent = format!("*{}\r\n", words.len());
    for word in words {
        sent.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    sent.into_bytes()
}

/// A typed PostgreSQL message.
fn pg(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind], length.to_be_bytes().as_slice(), body].concat()
}

fn pg_start(body: &[u8]) -> Vec<u8> {
    pg(0, body)[1..].to_vec()
}

fn pg_login() -> (Vec<u8>, Vec<u8>) {
    let hello = b"\0\x03\0\0user\0ada\0database\0shop\0application_name\0psql\0\0";
    let welcome = [
        pg(b'R', b"\0\0\0\0"),
        pg(b'S', b"server_version\x0015.4 (Debian)\0"),
        pg(b'K', b"12345678"),
        pg(b'Z', b"I"),
    ];
    (pg_start(hello), welcome.concat())
}

/// A MySQL packet.
fn my(number: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    [&length[..3], &[number], body].concat()
}

fn my_greeting(capabilities: u32) -> Vec<u8> {
    let [a, b, c, d] = capabilities.to_le_bytes();
    let body = [
        b"\x0a10.11.6-MariaDB\0".as_slice(),
        b"\x01\0\0\0ABCDEFGH\0",
        &[a, b, 8, 2, 0, c, d, 21],
        b"\0\0\0\0\0\0\0\0\0\0IJKLMNOPQRST\0mysql_native_password\0",
    ];
    my(0, &body.concat())
}

fn my_login(capabilities: u32) -> Vec<u8> {
    let capabilities = capabilities.to_le_bytes();
    let body = [
        capabilities.as_slice(),
        &[0; 28],
        b"ada\0\x07hunter2shop\0mysql_native_password\0",
    ];
    my(1, &body.concat())
}

const MY_CAPABILITIES: u32 = 1 << 3 | 1 << 9 | 1 << 15 | 1 << 21;
const MY_OK: &[u8] = b"\0\0\0\x02\0\0\0";

/// A `ClientHello` in one record, for `name` and with this offer.
fn client_hello(name: &str, offer: &[&str]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let server_name = sized(&[&[0], sized(name.as_bytes()).as_slice()].concat());
    let offer: Vec<u8> = offer
        .iter()
        .flat_map(|name| [&[u8::try_from(name.len()).unwrap()], name.as_bytes()].concat())
        .collect();
    let extensions = [
        [&[0, 0], sized(&server_name).as_slice()].concat(),
        [&[0, 43], sized(&[2, 3, 4]).as_slice()].concat(),
        [&[0, 16], sized(&sized(&offer)).as_slice()].concat(),
    ];
    let hello = [
        [3, 3].as_slice(),
        &[7; 32],
        &[0],
        &sized(&[0x13, 1]),
        &[1, 0],
        &sized(&extensions.concat()),
    ]
    .concat();
    let length = u32::try_from(hello.len()).unwrap().to_be_bytes();
    let message = [&[1], &length[1..], hello.as_slice()].concat();
    [[22, 3, 1].as_slice(), &sized(&message)].concat()
}

#[test]
fn unknown_protocols_stay_bytes() {
    for said in [
        &[(Client, b"\x01\x02\x03".as_slice())] as &[Said<'_>],
        &[(Server, b"SSH-2.0-OpenSSH_9.2\r\n")],
        &[(Server, b"220 mail ESMTP\r\n"), (Client, b"EHLO x\r\n")],
        &[
            (Client, b"get tea\r\n"),
            (Server, b"VALUE tea 0 1\r\nx\r\nEND\r\n"),
        ],
        &[
            (Client, b"put 0 0 60 1\r\nx\r\n"),
            (Server, b"INSERTED 1\r\n"),
        ],
        &[
            (Client, b"CONNECT\naccept-version:1.2\n\n\0"),
            (Server, b"CONNECTED\n"),
        ],
        &[(Client, &[b'a'; 20_000])],
        &[(Client, b"*3\r\nfoo")],
        &[(Client, b"\0\0\0\x05\0\x03\0\0")],
        &[(Client, b"\x16\x03\x09")],
        &[(Client, b"PING\r\n")],
        &[],
    ] {
        assert_eq!(heard(said), None, "{said:?}");
    }
}

/// The conversations of these tests, in the form that the fuzzer writes.
fn written() -> Vec<Vec<u8>> {
    let (hello, welcome) = pg_login();
    let texts: Vec<Vec<Said<'_>>> = vec![
        vec![
            (Client, b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$4\r\nPING\r\n"),
            (Server, b"%1\r\n$1\r\na\r\n*2\r\n:1\r\n-ERR x\r\n+PONG\r\n"),
            (Client, b"SUBSCRIBE a b\r\n"),
            (Server, b">3\r\n+subscribe\r\n+a\r\n:1\r\n"),
        ],
        vec![
            (Client, &hello),
            (Server, &welcome),
            (Client, b"P\0\0\0\x11\0SELECT 1\0\0\0B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"),
            (Server, b"1\0\0\0\x042\0\0\0\x04C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I"),
            (Client, b"Q\0\0\0\x0dSELECT 1\0"),
            (Server, b"E\0\0\0\x12C42601\0Mno!\0\0\0Z\0\0\0\x05I"),
        ],
        vec![
            (Client, b"GET /a HTTP/1.1\r\nhost: x\r\n\r\nPUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
            (Server, b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naHTTP/1.1 404 x\r\n\r\n"),
        ],
    ];
    let write = |said: &Vec<Said<'_>>| {
        let mut out = Vec::new();
        for (direction, bytes) in said {
            for part in bytes.chunks(100) {
                let length = u8::try_from(part.len()).unwrap() << 1;
                out.push(length | u8::from(*direction == Server));
                out.extend_from_slice(part);
            }
        }
        out
    };
    let mut all: Vec<_> = texts.iter().map(write).collect();
    let greeting = my_greeting(MY_CAPABILITIES);
    let login = my_login(MY_CAPABILITIES);
    let query = my(0, b"\x03SELECT 1");
    let ok = [my(2, MY_OK), my(1, MY_OK)].concat();
    all.push(write(&vec![
        (Server, &greeting),
        (Client, &login),
        (Server, &ok[..11]),
        (Client, &query),
        (Server, &ok[11..]),
    ]));
    all.push(write(&vec![(
        Client,
        &client_hello("shop.example", &["h2"]),
    )]));
    all
}

#[test]
fn the_conversations_that_are_mutated_are_told_apart() {
    for data in written() {
        let application = listen(&super::fuzzing::parts(&data), usize::MAX);
        assert!(application.is_some_and(|a| !a.broken), "{data:?}");
    }
}

proptest! {
    #[test]
    fn mutated_conversations_never_panic_and_do_not_depend_on_cuts(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let all = written();
        let mut data = all[which.index(all.len())].clone();
        for (at, byte) in changes {
            let at = at.index(data.len());
            data[at] = byte;
        }
        conversation(&data);
        conversation(&data[..cut.index(data.len())]);
    }

    #[test]
    fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..2000)) {
        conversation(&data);
    }
}
