//! MySQL and MariaDB.

use super::{
    Client, MY_CAPABILITIES, MY_OK, Said, Server, application, calls, my, my_greeting, my_login,
};

#[test]
fn mysql_queries_prepared_statements_and_errors() {
    let query = |text: &str| my(0, format!("\x03{text}").as_bytes());
    let rows = [
        my(1, &[1]),
        my(2, b"\x03def..."),
        my(3, b"\x031"),
        my(4, b"\xfe\0\0\x02\0"),
    ];
    let ends_badly = [
        my(1, &[1]),
        my(2, b"\x03def"),
        my(3, b"\xff\x25\x05#70100interrupted"),
    ];
    let prepare = |text: &str| my(0, format!("\x16{text}").as_bytes());
    let prepared = [my(1, b"\0\x05\0\0\0\0\0\x01\0\0\0\0"), my(2, b"\x03def")].concat();
    let said = [
        (Server, my_greeting(MY_CAPABILITIES)),
        (Client, my_login(MY_CAPABILITIES)),
        (Server, my(2, b"\xfemysql_native_password\0ABCDEFGH\0")),
        (Client, my(3, b"hunter2hunter2")),
        (Server, my(4, MY_OK)),
        (Client, query("SELECT\n 1")),
        (Server, rows.concat()),
        (Client, query("SELEKT 1")),
        (Server, my(1, b"\xff\x28\x04#42000You have an error")),
        (Client, prepare("SELECT ?")),
        (Server, prepared),
        (Client, my(0, b"\x17\x05\0\0\0\0\x01\0\0\0")),
        (Server, ends_badly.concat()),
        (Client, my(0, b"\x19\x05\0\0\0")),
        (Client, my(0, b"\x0e")),
        (Server, my(1, MY_OK)),
        (Client, query("CREATE USER bob IDENTIFIED BY 'hunter2'")),
        (Server, my(1, b"\xff\x28\x04#42000near 'hunter2'")),
        (Client, my(0, b"\x11bob\0\x07hunter2shop\0")),
        (Server, my(1, b"\xfemysql_native_password\0")),
        (Client, my(2, b"hunter2")),
        (Server, my(3, b"\xff\x15\x04#28000Access denied")),
        (Client, my(0, b"\x01")),
    ];
    let said: Vec<_> = said.iter().map(|(who, bytes)| (*who, &**bytes)).collect();
    let application = application(&said);
    assert_eq!(&*application.protocol, "mysql");
    let facts = &application.facts;
    assert_eq!(facts.user.as_deref(), Some("ada"));
    assert_eq!(facts.database.as_deref(), Some("shop"));
    assert_eq!(facts.server_version.as_deref(), Some("10.11.6-MariaDB"));
    assert_eq!(
        calls(&application),
        [
            "SELECT 1",
            "SELEKT 1 !1064 You have an error",
            "PREPARE SELECT ?",
            "SELECT ? !1317 interrupted",
            "PING",
            "CREATE USER bob IDENTIFIED BY *** !1064",
            "CHANGE USER bob !1045 Access denied",
        ]
    );
    assert!(!format!("{application:?}").contains("hunter2"));
}

#[test]
fn mysql_that_refuses_a_login_and_that_is_compressed() {
    let greeting = my_greeting(MY_CAPABILITIES | COMPRESSED);
    let refused = my(
        2,
        b"\xff\x15\x04#28000Access denied for user 'ada'@'h' (using password: YES)",
    );
    let said: [Said<'_>; 3] = [
        (Server, &greeting),
        (Client, &my_login(MY_CAPABILITIES)),
        (Server, &refused),
    ];
    assert_eq!(
        calls(&application(&said)),
        ["CONNECT !1045 Access denied for user 'ada'@'h' (using password: YES)"]
    );
    let said: [Said<'_>; 3] = [
        (Server, &greeting),
        (Client, &my_login(MY_CAPABILITIES | COMPRESSED)),
        (Server, &my(2, MY_OK)),
    ];
    let application = application(&said);
    assert!(application.broken && application.calls.is_empty());
}

const COMPRESSED: u32 = 1 << 5;
