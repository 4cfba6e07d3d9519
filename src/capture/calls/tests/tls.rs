//! TLS that passes through.

use super::{
    Client, MY_CAPABILITIES, Said, Server, application, client_hello, my, my_greeting, pg_start,
};
use crate::record::Application;

#[test]
fn tls_that_passes_through_tells_whom_it_is_for() {
    let hello = client_hello("shop.example", &["h2", "http/1.1"]);
    let check = |application: &Application, protocol: &str| {
        assert_eq!(&*application.protocol, protocol);
        let facts = &application.facts;
        assert_eq!(facts.server_name.as_deref(), Some("shop.example"));
        let alpn: Vec<_> = facts.alpn.iter().map(|name| &**name).collect();
        assert_eq!(alpn, ["h2", "http/1.1"]);
        assert!(facts.encrypted && !application.broken);
        assert_eq!(application.count, 0);
    };
    let secret = [23, 3, 3, 0, 4, 1, 2, 3, 4];
    let said: [Said<'_>; 3] = [
        (Client, &hello),
        (Server, b"\x16\x03\x03\0"),
        (Client, &secret),
    ];
    check(&application(&said), "tls");

    // The same hello in two records.
    let (one, two) = hello[5..].split_at(40);
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[22, 3, 3], length.as_slice(), part].concat()
    };
    check(
        &application(&[(Client, &[record(one), record(two)].concat())]),
        "tls",
    );

    let asks = pg_start(&80_877_103_u32.to_be_bytes());
    let said: [Said<'_>; 4] = [
        (Client, &asks),
        (Server, b"S"),
        (Client, &hello),
        (Server, &secret),
    ];
    check(&application(&said), "postgresql");

    let both = MY_CAPABILITIES | 1 << 11;
    let asks = my(1, &[both.to_le_bytes().as_slice(), &[0; 28]].concat());
    let said: [Said<'_>; 4] = [
        (Server, &my_greeting(both)),
        (Client, &asks),
        (Client, &hello),
        (Server, &secret),
    ];
    check(&application(&said), "mysql");
}
