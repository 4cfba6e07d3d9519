//! PostgreSQL.

use super::{Client, Said, Server, application, calls, pg, pg_login, pg_start};

#[test]
fn postgresql_simple_queries_errors_and_copy() {
    let (hello, welcome) = pg_login();
    let query = |text: &str| pg(b'Q', format!("{text}\0").as_bytes());
    let ready = pg(b'Z', b"I");
    let rows = [
        pg(b'T', b"\0\x01"),
        pg(b'D', b"\0\x01"),
        pg(b'C', b"SELECT 1\0"),
    ];
    let failed = pg(
        b'E',
        b"SERROR\0VERROR\0C42P01\0Mrelation \"t\" does not exist\0P15\0\0",
    );
    let copied = [pg(b'd', b"row\n"), pg(b'c', b"")].concat();
    let said = [
        (Client, pg_start(&80_877_103_u32.to_be_bytes())),
        (Server, b"N".to_vec()),
        (Client, hello),
        (Server, pg(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")),
        (Client, pg(b'p', b"SCRAM-SHA-256\0hunter2")),
        (Server, welcome),
        (Client, query("SELECT 1;\n SELECT 2")),
        (
            Server,
            [rows.concat(), rows.concat(), ready.clone()].concat(),
        ),
        (Client, query("SELECT * FROM t")),
        (Server, [failed, ready.clone()].concat()),
        (Client, query("COPY t FROM STDIN")),
        (Server, pg(b'G', b"\0\0\0")),
        (Client, copied),
        (Server, [pg(b'C', b"COPY 1\0"), ready].concat()),
        (Client, query("ALTER USER ada PASSWORD 'hunter2'")),
        (Client, pg(b'X', b"")),
    ];
    let said: Vec<_> = said.iter().map(|(who, bytes)| (*who, &**bytes)).collect();
    let application = application(&said);
    assert_eq!(&*application.protocol, "postgresql");
    let facts = &application.facts;
    assert_eq!(facts.user.as_deref(), Some("ada"));
    assert_eq!(facts.database.as_deref(), Some("shop"));
    assert_eq!(facts.server_version.as_deref(), Some("15.4 (Debian)"));
    assert_eq!(
        calls(&application),
        [
            "SELECT 1; SELECT 2",
            "SELECT * FROM t !42P01 relation \"t\" does not exist",
            "COPY t FROM STDIN",
            "ALTER USER ada PASSWORD *** ?",
        ]
    );
    assert!(!application.broken && !facts.encrypted);
    assert!(!format!("{application:?}").contains("hunter2"));
}

#[test]
fn postgresql_prepared_statements_pipelines_and_what_an_error_skips() {
    let (hello, welcome) = pg_login();
    let parse = |name: &str, text: &str| pg(b'P', format!("{name}\0{text}\0\0\0").as_bytes());
    let bind = |name: &str| {
        pg(
            b'B',
            format!("\0{name}\0\0\0\0\x01\0\0\0\x07hunter2\0\0").as_bytes(),
        )
    };
    let (execute, sync) = (pg(b'E', b"\0\0\0\0\0"), pg(b'S', b""));
    let (parsed, bound, ready) = (pg(b'1', b""), pg(b'2', b""), pg(b'Z', b"I"));
    let done = pg(b'C', b"SELECT 1\0");
    let failed = pg(b'E', b"SERROR\0C22012\0Mdivision by zero\0\0");
    let run = |name: &str| [bind(name), execute.clone()].concat();
    let asked = [
        parse("one", "SELECT $1"),
        sync.clone(),
        run("one"),
        sync.clone(),
        parse("", "SELECT 1/0"),
        run(""),
        run("one"),
        sync.clone(),
        run("one"),
        sync.clone(),
        run("unknown"),
        sync,
    ];
    let told = [
        [parsed.clone(), ready.clone()].concat(),
        [bound.clone(), done.clone(), ready.clone()].concat(),
        [parsed, bound.clone(), failed, ready.clone()].concat(),
        [bound.clone(), done.clone(), ready.clone()].concat(),
        [bound, done, ready].concat(),
    ];
    let said: [Said<'_>; 4] = [
        (Client, &hello),
        (Server, &welcome),
        (Client, &asked.concat()),
        (Server, &told.concat()),
    ];
    let application = application(&said);
    assert_eq!(
        calls(&application),
        [
            "PREPARE SELECT $1",
            "SELECT $1",
            "SELECT 1/0 !22012 division by zero",
            "SELECT $1 ?",
            "SELECT $1",
            "EXECUTE",
        ]
    );
    assert!(!format!("{application:?}").contains("hunter2"));
}

#[test]
fn postgresql_copy_by_a_prepared_statement_keeps_answers_in_step() {
    let (hello, welcome) = pg_login();
    let copy = [
        pg(b'P', b"\0COPY t FROM STDIN\0\0\0"),
        pg(b'B', b"\0\0\0\0\0\0\0\0"),
        pg(b'E', b"\0\0\0\0\0"),
        pg(b'S', b""),
    ];
    let rows = [pg(b'd', b"1\n"), pg(b'c', b""), pg(b'S', b"")];
    let began = [pg(b'1', b""), pg(b'2', b""), pg(b'G', b"\0\0\0")];
    let ended = [pg(b'C', b"COPY 1\0"), pg(b'Z', b"I")];
    let failed = [pg(b'E', b"C42601\0Mno\0\0"), pg(b'Z', b"I")];
    let said: [Said<'_>; 8] = [
        (Client, &hello),
        (Server, &welcome),
        (Client, &copy.concat()),
        (Server, &began.concat()),
        (Client, &rows.concat()),
        (Server, &ended.concat()),
        (Client, &pg(b'Q', b"SELEKT\0")),
        (Server, &failed.concat()),
    ];
    assert_eq!(
        calls(&application(&said)),
        ["COPY t FROM STDIN", "SELEKT !42601 no"]
    );
}

#[test]
fn postgresql_logins_that_fail_and_cancellations_are_told() {
    let (hello, _) = pg_login();
    let failed = pg(
        b'E',
        b"SFATAL\0C28P01\0Mpassword authentication failed for user \"ada\"\0\0",
    );
    let said: [Said<'_>; 2] = [(Client, &hello), (Server, &failed)];
    assert_eq!(
        calls(&application(&said)),
        ["CONNECT !28P01 password authentication failed for user \"ada\""]
    );
    let cancel = pg_start(&[&80_877_102_u32.to_be_bytes(), b"12345678".as_slice()].concat());
    assert_eq!(calls(&application(&[(Client, &cancel)])), ["CANCEL ?"]);
}
