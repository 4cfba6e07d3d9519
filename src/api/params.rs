//! Query strings: every parameter is known, stands once, and is right, or the answer names it.

use jiff::Timestamp;

use super::error::Error;
use crate::record::{NodeId, Outcome, Protocol, RecordId};
use crate::store::{Cursor, Filter, Order, Query, StatusFilter};

/// The most records of one page.
pub(super) const MAX_LIMIT: usize = 1000;
/// Bytes of one value; more than any text that could be found.
const MAX_VALUE: usize = 4096;

/// What a listing is narrowed down by.
const FILTERS: [&str; 9] = [
    "node", "service", "protocol", "method", "status", "host", "path", "q", "outcome",
];
/// What else a listing takes.
const PAGING: [&str; 5] = ["start", "end", "limit", "order", "cursor"];
/// The names of [`Outcome`].
const OUTCOMES: [&str; 5] = [
    Outcome::Ok.as_str(),
    Outcome::ClientClosed.as_str(),
    "upstream_failed",
    "client_error",
    "proxy_closed",
];

/// The pairs of one query string.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads a query string of which only the `known` names may stand, each once and not empty.
    pub(super) fn read(query: Option<&str>, known: &[&[&str]]) -> Result<Self, Error> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.iter().any(|names| names.contains(&name.as_ref())) {
                let message = match known.concat().as_slice() {
                    [] => "this route takes no parameter".to_owned(),
                    names => format!("is not a parameter; there are {}", names.join(", ")),
                };
                return Err(Error::parameter(&name, message));
            }
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return Err(Error::parameter(&name, "stands more than once"));
            }
            if value.is_empty() {
                let message = "is empty: give a value or leave the parameter out";
                return Err(Error::parameter(&name, message));
            }
            if value.len() > MAX_VALUE {
                let message = format!("is longer than {MAX_VALUE} bytes");
                return Err(Error::parameter(&name, message));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// A whole number between two bounds.
    pub(super) fn number<T>(&self, name: &str, least: T, most: T) -> Result<Option<T>, Error>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match text.parse::<T>() {
            Ok(number) if number >= least && number <= most => Ok(Some(number)),
            _ => Err(Error::parameter(
                name,
                format!("`{text}` must be a whole number from {least} to {most}"),
            )),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    fn one_of(&self, name: &str, values: &[&str]) -> Result<Option<String>, Error> {
        match self.get(name) {
            Some(text) if !values.contains(&text) => Err(Error::parameter(
                name,
                format!("`{text}` must be one of {}", values.join(", ")),
            )),
            found => Ok(found.map(str::to_owned)),
        }
    }
}

/// The question that a query string of `GET /api/records` asks.
pub(super) fn records_query(raw: Option<&str>) -> Result<Query, Error> {
    let params = Params::read(raw, &[&FILTERS, &PAGING])?;
    let default = Query::default();
    let time = |name| params.get(name).map(|text| micros(name, text)).transpose();
    let (start_us, end_us) = (time("start")?, time("end")?);
    if let (Some(start), Some(end)) = (start_us, end_us)
        && start >= end
    {
        return Err(Error::parameter("end", "must be later than `start`"));
    }
    let order = match params.one_of("order", &["newest", "oldest"])?.as_deref() {
        Some("oldest") => Order::OldestFirst,
        _ => Order::NewestFirst,
    };
    let cursor = params
        .get("cursor")
        .map(|text| {
            text.parse::<Cursor>()
                .map_err(|e| Error::parameter("cursor", e.to_string()))
        })
        .transpose()?;
    Ok(Query {
        start_us,
        end_us,
        filter: filter_of(&params)?,
        order,
        cursor,
        limit: params
            .number("limit", 1, MAX_LIMIT)?
            .unwrap_or(default.limit),
    })
}

/// The filter that a query string of `GET /api/events` asks for.
pub(super) fn events_filter(raw: Option<&str>) -> Result<Filter, Error> {
    filter_of(&Params::read(raw, &[&FILTERS])?)
}

/// Refuses every parameter.
pub(super) fn none(raw: Option<&str>) -> Result<(), Error> {
    Params::read(raw, &[]).map(|_| ())
}

/// A time as microseconds since the Unix epoch.
pub(super) fn micros(name: &str, text: &str) -> Result<i64, Error> {
    // An offset's `+` that was not written as %2B reads as a space (URL Standard, section 5.1).
    let restored = text
        .rsplit_once(' ')
        .map(|(time, offset)| format!("{time}+{offset}"));
    let read = text.parse::<Timestamp>().or_else(|error| {
        restored
            .and_then(|text| text.parse::<Timestamp>().ok())
            .ok_or(error)
    });
    read.map(Timestamp::as_microsecond).map_err(|error| {
        Error::parameter(
            name,
            format!(
                "`{text}` must be an ISO 8601 time with an offset, such as 2026-01-31T12:00:00Z \
                 or 2026-01-31T20:00:00+08:00 ({error})"
            ),
        )
    })
}

/// A record's id.
pub(super) fn record_id(text: &str) -> Result<RecordId, Error> {
    text.parse().map_err(|error| {
        Error::parameter(
            "id",
            format!("`{text}` is no record id, which is a UUID ({error})"),
        )
    })
}

fn filter_of(params: &Params) -> Result<Filter, Error> {
    let node = params.get("node").map(NodeId::new).transpose();
    node.map_err(|error| Error::parameter("node", error.to_string()))?;
    if let Some(text) = params.get("protocol")
        && Protocol::from_name(text).is_none()
    {
        let message = format!("`{text}` must be one of http, h2, grpc, ws, tcp");
        return Err(Error::parameter("protocol", message));
    }
    let status = params.get("status").map(|text| {
        status_filter(text).ok_or_else(|| {
            let message = format!("`{text}` must be a status such as 404, or a class such as 5xx");
            Error::parameter("status", message)
        })
    });
    Ok(Filter {
        node: params.text("node"),
        service: params.text("service"),
        protocol: params.text("protocol"),
        method: params.text("method"),
        status: status.transpose()?,
        host: params.text("host"),
        path_prefix: params.text("path"),
        text: params.text("q"),
        outcome: params.one_of("outcome", &OUTCOMES)?,
    })
}

/// `404` or `5xx`.
pub(super) fn status_filter(text: &str) -> Option<StatusFilter> {
    if text.len() != 3 || !text.is_ascii() {
        return None;
    }
    let (first, rest) = text.split_at(1);
    let class: u16 = first.parse().ok().filter(|class| (1..=9).contains(class))?;
    if rest.eq_ignore_ascii_case("xx") {
        return Some(StatusFilter::Class(class));
    }
    let all_digits = rest.bytes().all(|b| b.is_ascii_digit());
    let number = all_digits.then(|| text.parse().ok()).flatten();
    number.map(StatusFilter::Exactly)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(query: &str) -> String {
        match records_query(Some(query)) {
            Err(Error::Parameter { name, .. }) => name,
            other => panic!("{query}: {other:?}"),
        }
    }

    #[test]
    fn reads_every_parameter() {
        let query = records_query(Some(
            "start=2026-01-31T20:00:00%2B08:00&end=2026-01-31T13:00:00Z&limit=7&order=oldest\
             &node=az1&service=shop&protocol=h2&method=GET&status=5xx&host=a.b&path=/x%20y&q=z\
             &outcome=ok&cursor=0000000000000000000000000000004d",
        ))
        .unwrap();
        assert_eq!(
            query.end_us.unwrap() - query.start_us.unwrap(),
            3_600_000_000
        );
        assert_eq!((query.limit, query.order), (7, Order::OldestFirst));
        assert_eq!(query.cursor, Some(Cursor::after(RecordId::from_u128(77))));
        let text = |text: &str| Some(text.to_owned());
        let expected = Filter {
            node: text("az1"),
            service: text("shop"),
            protocol: text("h2"),
            method: text("GET"),
            status: Some(StatusFilter::Class(5)),
            host: text("a.b"),
            path_prefix: text("/x y"),
            text: text("z"),
            outcome: text("ok"),
        };
        assert_eq!(query.filter, expected);
    }

    #[test]
    fn an_offset_with_a_bare_plus_is_understood() {
        let escaped = records_query(Some("start=2026-01-31T20:00:00%2B08:00")).unwrap();
        let bare = records_query(Some("start=2026-01-31T20:00:00+08:00")).unwrap();
        assert_eq!(escaped, bare);
    }

    #[test]
    fn names_the_parameter_that_is_wrong() {
        let cases = [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=-1", "limit"),
            ("limit=ten", "limit"),
            ("limit=1&limit=2", "limit"),
            ("start=yesterday", "start"),
            ("start=2026-01-31T12:00:00", "start"),
            ("end=2026-01-31", "end"),
            ("start=2026-01-31T12:00:00Z&end=2026-01-31T12:00:00Z", "end"),
            ("order=up", "order"),
            ("cursor=7", "cursor"),
            ("node=a/b", "node"),
            ("protocol=smtp", "protocol"),
            ("status=99", "status"),
            ("status=0xx", "status"),
            ("status=+20", "status"),
            ("outcome=fine", "outcome"),
            ("method=", "method"),
            ("offset=5", "offset"),
        ];
        for (query, name) in cases {
            assert_eq!(bad(query), name, "{query}");
        }
        assert_eq!(bad(&format!("q={}", "x".repeat(MAX_VALUE + 1))), "q");
    }

    #[test]
    fn a_time_without_offset_is_told_what_is_missing() {
        let error = records_query(Some("start=2026-01-31T12:00:00")).unwrap_err();
        assert!(error.to_string().contains("with an offset"), "{error}");
    }
}
