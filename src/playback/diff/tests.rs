//! Tests of the comparison.

use proptest::prelude::{
    Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use serde_json::Value;

use super::*;

fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
    fields
        .iter()
        .map(|(n, v)| (Bytes::from(*n), Bytes::from(*v)))
        .collect()
}

fn snapshot<'a>(status: u16, headers: &'a Headers, body: &'static str) -> Snapshot<'a> {
    Snapshot {
        status,
        headers,
        content: Content::Whole(Bytes::from(body)),
    }
}

fn bodies(kind: &'static str, old: &'static str, new: &'static str, rules: &Rules) -> Comparison {
    let headers = headers(&[("content-type", kind)]);
    compare(
        &snapshot(200, &headers, old),
        &snapshot(200, &headers, new),
        rules,
    )
}

fn paths(comparison: &Comparison) -> Vec<(&str, Change)> {
    let all = comparison.differences.iter();
    all.map(|d| (d.path.as_str(), d.change)).collect()
}

#[test]
fn status_and_headers_are_compared_without_the_noise() {
    let old = headers(&[
        ("Date", "Mon"),
        ("Content-Length", "1"),
        ("X-A", "1"),
        ("X-B", "1"),
        ("Set-Cookie", "sid=1; Path=/"),
    ]);
    let new = headers(&[
        ("date", "Tue"),
        ("content-length", "2"),
        ("x-a", "2"),
        ("x-c", "1"),
        ("set-cookie", "sid=2"),
        ("qproxy-record", "x"),
    ]);
    let found = compare(
        &snapshot(200, &old, "a"),
        &snapshot(500, &new, "a"),
        &Rules::default(),
    );
    let expected = [
        ("", Change::Changed),
        ("x-a", Change::Changed),
        ("x-b", Change::Removed),
        ("x-c", Change::Added),
    ];
    assert_eq!(paths(&found), expected);
    let strict = Rules {
        cookie_values: CookieValues::Compared,
        ..Rules::default()
    };
    let found = compare(&snapshot(200, &old, ""), &snapshot(200, &new, ""), &strict);
    assert!(paths(&found).contains(&("set-cookie", Change::Changed)));
}

#[test]
fn json_is_compared_by_path_and_ignored_paths_are_passed_over() {
    let old = r#"{"id":1,"items":[{"a":1,"at":5},{"a":2}],"x/y":1,"n":1.0}"#;
    let new = r#"{"n":1,"id":"1","items":[{"a":3,"at":6}],"x/y":2,"new":null}"#;
    let found = bodies("application/json", old, new, &Rules::default());
    let expected = [
        ("/id", Change::Changed),
        ("/items/0/a", Change::Changed),
        ("/items/0/at", Change::Changed),
        ("/items/1", Change::Removed),
        ("/x~1y", Change::Changed),
        ("/new", Change::Added),
    ];
    assert_eq!(paths(&found), expected);
    assert_eq!(found.differences[1].group(), "/items/*/a");
    let ignore_json = [
        "/items/*/at",
        "/id",
        "/new",
        "/x~1y",
        "/items/1",
        "/items/0/a",
    ];
    let rules = Rules {
        ignore_json: ignore_json.map(String::from).into(),
        ..Rules::default()
    };
    assert!(bodies("application/json", old, new, &rules).is_same());
}

#[test]
fn order_of_json_members_does_not_matter_but_large_integers_do() {
    let rules = Rules::default();
    assert!(bodies("a/b+json", r#"{"a":1,"b":2}"#, r#"{"b":2, "a":1}"#, &rules).is_same());
    let found = bodies("text/json", "9007199254740993", "9007199254740992", &rules);
    assert_eq!(paths(&found), [("/", Change::Changed)]);
}

#[test]
fn text_names_the_first_line_and_bytes_the_first_byte() {
    let rules = Rules::default();
    let found = bodies("text/plain", "a\nb\nc\nd", "a\nx\nd", &rules);
    assert_eq!(paths(&found), [("line 2", Change::Changed)]);
    assert_eq!(
        found.notes,
        ["text: 2 lines recorded, 1 lines now in their place"]
    );
    assert_eq!(found.differences[0].group(), "line *");
    let found = bodies("text/plain", "a\na", "a\na\na", &rules);
    assert_eq!(paths(&found), [("line 3", Change::Added)]);
    let gzip = headers(&[("content-encoding", "gzip")]);
    let found = compare(
        &snapshot(200, &gzip, "abc"),
        &snapshot(200, &gzip, "abx"),
        &rules,
    );
    assert_eq!(paths(&found), [("byte 2", Change::Changed)]);
    assert!(found.notes[0].contains("gzip"));
}

#[test]
fn a_large_body_is_compared_by_digest_and_a_partial_one_not_at_all() {
    let none = headers(&[("content-length", "7")]);
    let side = |content| Snapshot {
        status: 200,
        headers: &none,
        content,
    };
    let large = |text: &[u8]| Content::Digest {
        digest: Digest::of(text),
        bytes: text.len() as u64,
    };
    let rules = Rules::default();
    let compared = |old, new| compare(&side(old), &side(new), &rules);
    assert!(compared(large(b"a"), Content::Whole("a".into())).is_same());
    assert_eq!(
        paths(&compared(large(b"a"), large(b"b"))),
        [("digest", Change::Changed)]
    );
    assert_eq!(
        paths(&compared(large(b"a"), large(b"bc"))),
        [("length", Change::Changed)]
    );
    let partial = compared(Content::Unknown, large(b"b"));
    assert!(partial.is_same() && partial.notes.len() == 1);
}

#[test]
fn keeps_no_more_differences_than_the_limit() {
    let rules = Rules {
        max_differences: 3,
        ..Rules::default()
    };
    let found = bodies("application/json", "[1,2,3,4,5]", "[2,3,4,5,6]", &rules);
    assert_eq!((found.differences.len(), found.more), (3, 2));
    assert!(!found.is_same());
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z~/]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c~/]{0,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_differs_from_itself_and_equal_values_are_the_only_same_ones(old in json(), new in json()) {
        let kind = headers(&[("content-type", "application/json")]);
        let side = |value: &Value| Snapshot {
            status: 200,
            headers: &kind,
            content: Content::Whole(Bytes::from(value.to_string())),
        };
        let rules = Rules::default();
        prop_assert!(compare(&side(&old), &side(&old), &rules).is_same());
        let (there, back) = (
            compare(&side(&old), &side(&new), &rules),
            compare(&side(&new), &side(&old), &rules),
        );
        prop_assert_eq!(there.is_same(), back.is_same());
        prop_assert_eq!(there.differences.len(), back.differences.len());
        for difference in there.differences {
            let (in_old, in_new) = (old.pointer(&difference.path), new.pointer(&difference.path));
            let root = difference.path == "/";
            prop_assert!(root || in_old != in_new, "{} is the same in both", difference.path);
        }
    }

    #[test]
    fn text_differs_exactly_where_it_is_not_equal(old in "[ab\n]{0,8}", new in "[ab\n]{0,8}") {
        let none = Headers::default();
        let side = |text: &str| Snapshot {
            status: 200,
            headers: &none,
            content: Content::Whole(Bytes::from(text.to_owned())),
        };
        let found = compare(&side(&old), &side(&new), &Rules::default());
        prop_assert_eq!(found.is_same(), old == new);
    }
}
