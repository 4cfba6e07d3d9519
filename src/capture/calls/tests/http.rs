//! HTTP through a TCP proxy.

use super::{Client, Said, Server, application, calls};

#[test]
fn http_through_tcp_shows_request_lines_and_statuses() {
    let asked = b"GET /a?token=hunter2 HTTP/1.1\r\nHost: h\r\n\r\n\
        POST /b HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET \
        PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: 1\r\n\r\n\
        HEAD /d HTTP/1.1\r\n\r\nGET /e HTTP/1.0\r\n\r\n";
    let told = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
        HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\
        HTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\
        HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 500 is content";
    let application = application(&[(Client, asked), (Server, told)]);
    assert_eq!(&*application.protocol, "http");
    assert_eq!(
        calls(&application),
        [
            "GET /a?token=***",
            "POST /b !404 Not Found",
            "PUT /c",
            "HEAD /d",
            "GET /e"
        ]
    );
    assert!(!application.broken);
}

#[test]
fn what_follows_an_upgrade_or_a_tunnel_is_not_read_as_http() {
    for (asked, told) in [
        (
            "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            "101 Switching Protocols",
        ),
        ("CONNECT h:1 HTTP/1.1\r\n\r\n", "200 Connection established"),
    ] {
        let told = format!("HTTP/1.1 {told}\r\n\r\n\x01\x02");
        let said: [Said<'_>; 3] = [
            (Client, asked.as_bytes()),
            (Server, told.as_bytes()),
            (Client, b"\x03\x04 GET"),
        ];
        let application = application(&said);
        assert_eq!(application.count, 1);
        assert!(!application.broken);
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_eq!(&*application(&[(Client, preface)]).protocol, "h2");
}
