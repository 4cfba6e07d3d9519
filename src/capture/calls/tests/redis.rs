//! Redis.

use super::{Client, Said, Server, application, calls, resp};

#[test]
fn redis_commands_pipelined_with_errors_and_nested_replies() {
    let asked = [
        resp(&["SET", "tea", "grün"]),
        resp(&["GET", "tea"]),
        resp(&["LPUSH", "tea", "x y"]),
        resp(&["EXEC"]),
        b"PING\r\n".to_vec(),
        resp(&["GET", ""]),
    ];
    let told = b"+OK\r\n$5\r\ngr\xc3\xbcn\r\n-WRONGTYPE Operation against a key\r\n\
        *3\r\n:1\r\n*2\r\n$-1\r\n-ERR inner\r\n%1\r\n+a\r\n#t\r\n";
    let told = [told.as_slice(), b"+PONG\r\n", b"$-1\r\n"].concat();
    let application = application(&[(Client, &asked.concat()), (Server, &told)]);
    assert_eq!(&*application.protocol, "redis");
    assert_eq!(
        calls(&application),
        [
            "SET tea grün",
            "GET tea",
            "LPUSH tea \"x y\" !WRONGTYPE Operation against a key",
            "EXEC",
            "PING",
            "GET \"\"",
        ]
    );
    assert!(!application.broken);
}

#[test]
fn redis_messages_that_nobody_asked_for_are_no_answers() {
    let message = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n".as_slice();
    let told = |name: &str, channel: &str| {
        format!(
            "*3\r\n${}\r\n{name}\r\n$1\r\n{channel}\r\n:1\r\n",
            name.len()
        )
        .into_bytes()
    };
    let on = [
        told("subscribe", "a"),
        message.to_vec(),
        told("subscribe", "b"),
    ]
    .concat();
    let off = [told("unsubscribe", "a"), told("unsubscribe", "b")].concat();
    let said = [
        (Client, resp(&["SUBSCRIBE", "a", "b"])),
        (Server, on),
        (Client, resp(&["PING"])),
        (
            Server,
            [message, b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"].concat(),
        ),
        (Client, resp(&["UNSUBSCRIBE"])),
        (Client, resp(&["GET", "x"])),
        (Server, off),
        (Server, b"-ERR no x\r\n".to_vec()),
    ];
    let said: Vec<_> = said.iter().map(|(who, bytes)| (*who, &**bytes)).collect();
    let application = application(&said);
    assert_eq!(
        calls(&application),
        ["SUBSCRIBE a b", "PING", "UNSUBSCRIBE", "GET x !ERR no x"]
    );

    // In RESP 3 they are pushes, and so is what confirms a subscription.
    let push = b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n>2\r\n+message\r\n+x\r\n_\r\n";
    let asked = [resp(&["SUBSCRIBE", "a"]), resp(&["GET", "x"])].concat();
    let application = super::application(&[(Client, &asked), (Server, push)]);
    assert_eq!(calls(&application), ["SUBSCRIBE a", "GET x"]);
}

#[test]
fn redis_secrets_are_masked_wherever_they_stand() {
    for words in [
        &["AUTH", "hunter2"] as &[_],
        &["auth", "ada", "hunter2"],
        &["HELLO", "3", "AUTH", "ada", "hunter2", "SETNAME", "x"],
        &["ACL", "SETUSER", "ada", "on", ">hunter2", "~*"],
        &["CONFIG", "SET", "requirepass", "hunter2"],
        &["CONFIG", "SET", "maxmemory", "1", "masterauth", "hunter2"],
        &["CONFIG", "SET", "tls-key-file-pass", "hunter2"],
        &[
            "MIGRATE", "h", "1", "k", "0", "9", "AUTH2", "ada", "hunter2",
        ],
        &["SENTINEL", "SET", "m", "auth-pass", "hunter2"],
        &["SET", "user:1:password", "hunter2"],
        &["SET", "user:1", "{\"password\": \"hunter2\"}"],
        &["SET", &"x".repeat(300), "hunter2"],
    ] {
        let echo = b"-ERR wrong number of arguments near 'hunter2'\r\n";
        let bare = !words.iter().any(|word| word.contains(' '));
        let inline = format!("{}\r\n", words.join(" ")).into_bytes();
        for asked in [Some(resp(words)), bare.then_some(inline)] {
            let Some(asked) = asked else { continue };
            let application = application(&[(Client, &asked), (Server, echo)]);
            assert_eq!(application.count, 1, "{words:?}");
            let shown = format!("{application:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("***"), "{shown}");
        }
    }
}

#[test]
fn redis_users_and_databases_are_told_and_never_a_half_of_a_password() {
    let told = b"+OK\r\n+OK\r\n";
    let asked = [resp(&["AUTH", "ada", "hunter2"]), resp(&["SELECT", "3"])].concat();
    let told_apart = application(&[(Client, &asked), (Server, told)]);
    let facts = &told_apart.facts;
    assert_eq!(facts.user.as_deref(), Some("ada"));
    assert_eq!(facts.database.as_deref(), Some("3"));
    let inline = b"AUTH \"hunter2 hunter2\"\r\nHELLO 3 AUTH 'hunter2 x' y\r\n";
    let told_apart = application(&[(Client, inline), (Server, told)]);
    assert_eq!(told_apart.count, 2);
    assert!(
        !format!("{told_apart:?}").contains("hunter2"),
        "{told_apart:?}"
    );
}

#[test]
fn redis_replication_is_told_and_not_followed() {
    let said: [Said<'_>; 4] = [
        (Client, &resp(&["REPLCONF", "listening-port", "1"])),
        (Server, b"+OK\r\n"),
        (Client, &resp(&["PSYNC", "?", "-1"])),
        (Server, b"+FULLRESYNC x 0\r\n$9\r\nREDIS0011*"),
    ];
    let application = application(&said);
    assert_eq!(
        calls(&application),
        ["REPLCONF listening-port 1", "PSYNC ? -1 ?"]
    );
    assert!(!application.broken);
}
