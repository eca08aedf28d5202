//! The manual of every key: the types go in, the text of `config/reference.toml` comes out. A test holds the file to it.

use super::Config;
use super::schema::Setting;

/// Collects the manual while the sections describe themselves.
#[derive(Debug, Default)]
pub struct Reference {
    text: String,
    path: Vec<String>,
}

const HEADER: &str = "\
# Every key of Obtrace with its meaning and its default. Generated from the types: `OBTRACE_BLESS=1 cargo test --test config`.
#
# A file needs only what differs from here. A value is looked up in this order, the first one holds:
#   1. flag                   --http 127.0.0.1:9090, or for any key  --set serve.http=127.0.0.1:9090
#   2. environment            OBTRACE__SERVE__HTTP=127.0.0.1:9090 (levels parted by two underscores; lists as a,b)
#   3. files                  --config F; the later file holds against the earlier
#   4. profile                what `obtrace dev` brings along (config/profiles/dev.toml)
#   5. the default            written here
# WIRE_FORMAT, OBTRACE_DATA_DIR and OBTRACE_ENGINE_LIBRARY stand for ingest.wire_format, data_dir and
# telemetry.engine.library. `obtrace config check` prints every value with the place that set it.
";

impl Reference {
    /// A plain key with its default.
    pub fn key(&mut self, key: &str, docs: &[&str], default: &str) {
        self.docs(docs);
        self.text.push_str(&format!("{key} = {default}\n"));
    }

    /// A key that is not set unless somebody sets it.
    pub fn unset(&mut self, key: &str, docs: &[&str], expected: &str) {
        self.docs(docs);
        self.text.push_str(&format!("# {key} =   # not set; {expected}\n"));
    }

    /// A section: its header, then what `body` writes.
    pub fn table(&mut self, key: &str, docs: &[&str], body: impl FnOnce(&mut Self)) {
        if key.is_empty() {
            return body(self);
        }
        self.path.push(key.to_owned());
        self.text.push('\n');
        self.docs(docs);
        self.text.push_str(&format!("[{}]\n", self.path.join(".")));
        body(self);
        self.path.pop();
    }

    /// Lines that are comments as a whole: an example of a table that has no default.
    pub fn example(&mut self, docs: &[&str], lines: &str) {
        self.text.push('\n');
        self.docs(docs);
        for line in lines.lines() {
            self.text.push_str(format!("# {line}").trim_end());
            self.text.push('\n');
        }
    }

    /// What has been written so far, by line.
    pub fn lines(&self) -> std::str::Lines<'_> {
        self.text.lines()
    }

    fn docs(&mut self, docs: &[&str]) {
        for line in docs {
            self.text.push_str(format!("#{line}").trim_end());
            self.text.push('\n');
        }
    }
}

/// The text of `config/reference.toml`.
pub fn render() -> String {
    let mut out = Reference { text: format!("{HEADER}\n"), path: Vec::new() };
    Config::default().describe("", &[], &mut out);
    out.text
}
