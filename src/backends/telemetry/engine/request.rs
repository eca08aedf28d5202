//! One HTTP request as the engine needs it: URL parameters and headers in, settings, query parameters and credentials out.
//!
//! What may fail: a parameter this front does not offer (sessions, native compression, roles), a malformed name.

use std::time::Duration;

use super::super::guard::{ENGINE_SETTING, EVERY_TENANT, TENANT_HEADER, TENANT_SETTING};
use super::exception::{Exception, codes};
use super::ffi::Param;
use super::sql::literal;

/// The time a statement gets when its request names none (`max_execution_time`).
pub const DEFAULT_EXECUTION: Duration = Duration::from_secs(60);
/// The longest a request may take, whatever it asks for.
pub const MAX_EXECUTION: Duration = Duration::from_secs(3600);

/// What the URL (or a form) says besides the statement itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Request {
    /// The statement or its beginning; the rest is in the body.
    pub query: Option<String>,
    /// Database for unqualified names.
    pub database: Option<String>,
    /// Output format where the text names none.
    pub default_format: Option<String>,
    /// Echoed in `X-ClickHouse-Query-Id`.
    pub query_id: Option<String>,
    /// Values for `{name:Type}` placeholders.
    pub params: Vec<Param>,
    /// Settings of this statement, in the order given.
    pub settings: Vec<(String, String)>,
    /// `user` and `password` of the URL.
    pub user: Option<String>,
    /// See `user`.
    pub password: Option<String>,
    /// Whose rows the statement may see; without one it sees none of any tenant.
    pub tenant: Option<String>,
    /// Whether it is an insert of rows from outside, which passes the row filters of the tables it goes to.
    pub inserts: bool,
}

impl Request {
    /// Sorts the fields of a URL or a form.
    ///
    /// # Errors
    /// `NOT_IMPLEMENTED` for what this front does not offer, `UNKNOWN_SETTING` for a name that cannot be one.
    pub fn absorb<I>(&mut self, fields: I) -> Result<(), Exception>
    where
        I: IntoIterator<Item = (String, Vec<u8>)>,
    {
        for (name, value) in fields {
            if let Some(param) = name.strip_prefix("param_") {
                self.params.push((param.to_owned(), value));
                continue;
            }
            let value = String::from_utf8(value).map_err(|_| {
                Exception::new(codes::BAD_ARGUMENTS, format_args!("the value of {name} is not UTF-8"))
            })?;
            self.absorb_one(name, value)?;
        }
        Ok(())
    }

    fn absorb_one(&mut self, name: String, value: String) -> Result<(), Exception> {
        match name.as_str() {
            "query" => self.query = Some(value),
            "database" => self.database = Some(value).filter(|d| !d.is_empty()),
            "default_format" => self.default_format = Some(value).filter(|f| !f.is_empty()),
            "query_id" => self.query_id = Some(value).filter(|i| !i.is_empty()),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            TENANT_SETTING => self.tenant = Some(value),
            ENGINE_SETTING => {
                return Err(Exception::new(
                    codes::ACCESS_DENIED,
                    format_args!("{ENGINE_SETTING} carries the tenant, it is set by {TENANT_HEADER} only"),
                ));
            }
            // results are complete before the answer begins, so both hold by themselves
            "wait_end_of_query" | "buffer_size" | "quota_key" | "stacktrace" | "client_protocol_version" => {}
            "compress" | "decompress" | "session_check" | "close_session"
                if value == "0" || value.is_empty() => {}
            "compress" | "decompress" | "session_id" | "session_timeout" | "session_check"
            | "close_session" | "role" => {
                return Err(Exception::new(
                    codes::NOT_IMPLEMENTED,
                    format_args!(
                        "{name} is not supported by the embedded engine, leave it out (for compression use Content-Encoding: gzip)"
                    ),
                ));
            }
            _ => self.settings.push((setting_name(name)?, value)),
        }
        Ok(())
    }

    /// The statement that gives a fresh session this request's settings. `readonly` comes last: nothing can be set after it.
    pub fn set_statement(&self, read_only: bool, marker: &str) -> String {
        let mut pairs = vec![("chdb_client_name", marker)];
        let default_time = DEFAULT_EXECUTION.as_secs().to_string();
        if !self.settings.iter().any(|(name, _)| name == "max_execution_time") {
            pairs.push(("max_execution_time", &default_time));
        }
        let given = || self.settings.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        pairs.extend(given().filter(|(name, _)| *name != "readonly" && *name != "chdb_client_name"));
        let asked = given().rfind(|(name, _)| *name == "readonly");
        let tenant = self.tenant.as_deref();
        let whose = tenant.or_else(|| self.inserts.then_some(EVERY_TENANT));
        pairs.extend(whose.map(|whose| (ENGINE_SETTING, whose)));
        // For a tenant nothing can be changed, the setting that carries it included.
        let level = tenant.map(|_| ("readonly", "1")).or(asked);
        if let Some(pair) = level.or_else(|| read_only.then_some(("readonly", "2"))) {
            pairs.push(pair);
        }
        let list: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name} = {}", literal(value))).collect();
        format!("SET {}", list.join(", "))
    }

    /// How long the statement may run, by its own `max_execution_time` (0 = as long as the front allows).
    pub fn execution_time(&self) -> Duration {
        let asked = self.settings.iter().rev().find(|(name, _)| name == "max_execution_time");
        match asked.and_then(|(_, value)| value.parse::<f64>().ok()) {
            None => DEFAULT_EXECUTION,
            Some(seconds) if seconds > 0.0 => {
                Duration::try_from_secs_f64(seconds).unwrap_or(MAX_EXECUTION).min(MAX_EXECUTION)
            }
            Some(_) => MAX_EXECUTION,
        }
    }
}

fn setting_name(name: String) -> Result<String, Exception> {
    let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if good {
        return Ok(name);
    }
    Err(Exception::new(codes::UNKNOWN_SETTING, format_args!("Unknown setting {}", literal(&name))))
}

/// The fields of a `multipart/form-data` body, the form in which the `clickhouse` crate sends parameters.
///
/// # Errors
/// `INCORRECT_DATA` when the body does not follow its boundary.
pub fn multipart_fields(content_type: &str, body: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Exception> {
    let bad = |what: &str| Exception::new(codes::INCORRECT_DATA, format_args!("multipart body: {what}"));
    let boundary =
        attribute(content_type, "boundary").ok_or_else(|| bad("no boundary in the content type"))?;
    let delimiter = format!("--{boundary}");
    let mut rest =
        body.strip_prefix(delimiter.as_bytes()).ok_or_else(|| bad("does not begin with its boundary"))?;
    let separator = format!("\r\n{delimiter}");
    let mut fields = Vec::new();
    while !rest.starts_with(b"--") {
        rest = rest.strip_prefix(b"\r\n").ok_or_else(|| bad("no line break after a boundary"))?;
        let head_end = find(rest, b"\r\n\r\n").ok_or_else(|| bad("a part without an end of its headers"))?;
        let head = String::from_utf8_lossy(&rest[..head_end]).into_owned();
        let name = head
            .lines()
            .filter(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))
            .find_map(|line| attribute(line, "name"))
            .ok_or_else(|| bad("a part without a name"))?;
        let value = &rest[head_end + 4..];
        let value_end = find(value, separator.as_bytes()).ok_or_else(|| bad("a part without an end"))?;
        fields.push((name, value[..value_end].to_vec()));
        rest = &value[value_end + separator.len()..];
    }
    Ok(fields)
}

/// `form-data; name="x"` → x.
fn attribute(line: &str, name: &str) -> Option<String> {
    line.split(';').map(str::trim).find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Result<Request, Exception> {
        let mut request = Request::default();
        request.absorb(fields.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())))?;
        Ok(request)
    }

    #[test]
    fn sorts_parameters_settings_and_the_rest() {
        let r = request(&[("query", "select 1"), ("param_a", "x"), ("max_threads", "1"), ("database", "")])
            .expect("good");
        assert_eq!(r.params, vec![("a".to_owned(), b"x".to_vec())]);
        assert_eq!(r.settings, vec![("max_threads".to_owned(), "1".to_owned())]);
        assert_eq!((r.database, r.query.as_deref()), (None, Some("select 1")));
    }

    #[test]
    fn a_setting_cannot_carry_sql() {
        assert_eq!(request(&[("a = 1, b", "1")]).expect_err("refused").code, codes::UNKNOWN_SETTING);
        let set = request(&[("SQL_tenant_id", "x', readonly = '0")]).expect("good").set_statement(false, "q");
        assert!(set.ends_with(r"log_comment = 'x\', readonly = \'0', readonly = '1'"), "{set}");
    }

    #[test]
    fn a_tenant_is_named_in_its_own_way_and_makes_the_request_read_only() {
        assert_eq!(request(&[("log_comment", "a")]).expect_err("refused").code, codes::ACCESS_DENIED);
        let set =
            request(&[("SQL_tenant_id", "a"), ("readonly", "0")]).expect("good").set_statement(false, "q");
        assert!(set.ends_with("log_comment = 'a', readonly = '1'"), "{set}");
        assert!(!request(&[]).expect("good").set_statement(false, "q").contains("log_comment"));
    }

    #[test]
    fn readonly_is_set_last_and_a_read_only_request_cannot_lack_it() {
        let r = request(&[("readonly", "1"), ("max_threads", "1")]).expect("good");
        assert!(r.set_statement(true, "q").ends_with("max_threads = '1', readonly = '1'"));
        assert!(request(&[]).expect("good").set_statement(true, "q").ends_with("readonly = '2'"));
    }

    #[test]
    fn execution_time_is_bounded() {
        let time = |v: &str| request(&[("max_execution_time", v)]).expect("good").execution_time();
        assert_eq!(
            (time("1.5"), time("0"), time("1e30")),
            (Duration::from_millis(1500), MAX_EXECUTION, MAX_EXECUTION)
        );
        assert_eq!(Request::default().execution_time(), DEFAULT_EXECUTION);
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        assert_eq!(request(&[("decompress", "1")]).expect_err("refused").code, codes::NOT_IMPLEMENTED);
        assert!(request(&[("compress", "0")]).is_ok());
    }

    #[test]
    fn reads_multipart_fields() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nselect {a:String}\r\n--b\r\nContent-Disposition: form-data; name=\"param_a\"\r\n\r\nx\r\ny\r\n--b--\r\n";
        let fields = multipart_fields("multipart/form-data; boundary=b", body).expect("good");
        assert_eq!(fields[0], ("query".to_owned(), b"select {a:String}".to_vec()));
        assert_eq!(fields[1], ("param_a".to_owned(), b"x\r\ny".to_vec()));
        for cut in 0..body.len() - 4 {
            assert!(
                multipart_fields("multipart/form-data; boundary=b", &body[..cut]).is_err(),
                "cut at {cut}"
            );
        }
    }
}
