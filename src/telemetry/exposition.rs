//! OpenMetrics text: families of samples ⇄ text. Writing cannot fail; reading is strict and says which line is wrong.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// What a family measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations by size.
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    /// What may stand behind the family's name in a sample of this kind.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total"],
            Self::Gauge => &[""],
            Self::Histogram => &["_bucket", "_sum", "_count"],
        }
    }
}

/// Labels of a sample, in their order.
pub type Labels = Vec<(String, String)>;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What stands behind the family's name: `_total`, `_bucket`, or nothing.
    pub suffix: &'static str,
    /// Its labels.
    pub labels: Labels,
    /// The value.
    pub value: f64,
}

/// Samples that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Name without a suffix.
    pub name: String,
    /// What it measures.
    pub kind: Kind,
    /// What it is, for people.
    pub help: String,
    /// Its samples.
    pub samples: Vec<Sample>,
}

impl Family {
    /// A family without samples.
    pub fn new(name: &str, kind: Kind, help: &str) -> Self {
        Self { name: name.to_owned(), kind, help: help.to_owned(), samples: Vec::new() }
    }

    /// Adds the value of a counter or a gauge.
    pub fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        let suffix = if self.kind == Kind::Counter { "_total" } else { "" };
        self.samples.push(Sample { suffix, labels: owned(labels), value });
    }

    /// Adds a histogram: how many observations are up to each bound, and the sum of all.
    pub fn observe(&mut self, labels: &[(&str, &str)], bounds: &[f64], counts: &[u64], sum: f64) {
        let mut below = 0;
        let bounds = bounds.iter().map(f64::to_string).chain([String::from("+Inf")]);
        for (bound, count) in bounds.zip(counts) {
            below += count;
            let mut labels = owned(labels);
            labels.push(("le".to_owned(), bound));
            self.samples.push(Sample { suffix: "_bucket", labels, value: below as f64 });
        }
        self.samples.push(Sample { suffix: "_sum", labels: owned(labels), value: sum });
        self.samples.push(Sample { suffix: "_count", labels: owned(labels), value: below as f64 });
    }

    /// Writes the family; nothing when it has no samples.
    pub fn write(&self, text: &mut String) {
        if self.samples.is_empty() {
            return;
        }
        let name = &self.name;
        // Writing into a String cannot fail.
        write!(text, "# HELP {name} {}.\n# TYPE {name} {}\n", self.help, self.kind.as_str()).ok();
        for sample in &self.samples {
            write!(text, "{name}{}", sample.suffix).ok();
            for (n, (label, value)) in sample.labels.iter().enumerate() {
                write!(text, "{}{label}=\"{}\"", if n == 0 { "{" } else { "," }, escaped(value)).ok();
            }
            writeln!(text, "{} {}", if sample.labels.is_empty() { "" } else { "}" }, sample.value).ok();
        }
    }
}

fn owned(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Reads a whole exposition.
///
/// # Errors
/// What Prometheus would refuse or misread, with its line: bad names and values, samples without a type or of a foreign
/// suffix, a family in two places, a series twice, a histogram that is none, a missing end.
pub fn read(text: &str) -> Result<Vec<Family>, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("the text does not end with # EOF")?;
    let mut reader = Reader::default();
    for (n, line) in body.lines().enumerate() {
        reader.line(line).map_err(|why| format!("line {}: {why}: {line}", n + 1))?;
    }
    reader.families.iter().filter(|family| family.kind == Kind::Histogram).try_for_each(check_histogram)?;
    Ok(reader.families)
}

#[derive(Default)]
struct Reader {
    families: Vec<Family>,
    help: Option<(String, String)>,
    seen: BTreeSet<String>,
    series: BTreeSet<String>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            self.help = Some((name.to_owned(), help.trim_end_matches('.').to_owned()));
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            return self.open(rest);
        }
        if line.starts_with("# UNIT ") {
            return Ok(());
        }
        if line.starts_with('#') || line.is_empty() {
            return Err("neither a sample nor a known comment".to_owned());
        }
        self.sample(line)
    }

    fn open(&mut self, rest: &str) -> Result<(), String> {
        let (name, kind) = rest.split_once(' ').ok_or("a type without a kind")?;
        let kind = match kind {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            other => return Err(format!("kind {other} is not used here")),
        };
        if !is_name(name) {
            return Err(format!("{name} is no name"));
        }
        if !self.seen.insert(name.to_owned()) {
            return Err(format!("{name} stands here a second time"));
        }
        let help = self.help.take().filter(|(of, _)| of == name).map(|(_, help)| help);
        self.families.push(Family::new(name, kind, &help.ok_or("no help before the type")?));
        Ok(())
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let family = self.families.last_mut().ok_or("a sample before the first type")?;
        let (series, value) = line.rsplit_once(' ').ok_or("a sample without a value")?;
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').ok_or("labels without an end")?),
            None => (series, ""),
        };
        let suffix = name.strip_prefix(family.name.as_str()).ok_or("a sample of another family")?;
        let suffix = family.kind.suffixes().iter().find(|known| **known == suffix);
        let suffix = suffix.ok_or_else(|| format!("not a suffix of a {}", family.kind.as_str()))?;
        let value: f64 = value.parse().map_err(|_| "a value that is no number")?;
        if family.kind != Kind::Gauge && !(value.is_finite() && value >= 0.0) {
            return Err(format!("a {} cannot be {value}", family.kind.as_str()));
        }
        if !self.series.insert(series.to_owned()) {
            return Err("the series is there already".to_owned());
        }
        let labels = read_labels(labels)?;
        family.samples.push(Sample { suffix, labels, value });
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

fn read_labels(mut text: &str) -> Result<Labels, String> {
    let mut labels: Labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").ok_or("a label without a value")?;
        if !is_name(name) || labels.iter().any(|(known, _)| known == name) {
            return Err(format!("{name:?} is no label, or there twice"));
        }
        let (value, used) = unescaped(rest)?;
        labels.push((name.to_owned(), value));
        text = rest[used..].strip_prefix(',').unwrap_or(&rest[used..]);
    }
    Ok(labels)
}

/// A label's value up to its closing quote, and the bytes it takes with the quote.
fn unescaped(text: &str) -> Result<(String, usize), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, at + 1)),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                _ => return Err("an escape that is none".to_owned()),
            },
            c => value.push(c),
        }
    }
    Err("a label's value without an end".to_owned())
}

/// One histogram of a family.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// Labels without `le`.
    pub labels: Labels,
    /// Upper bounds without the last, which is infinite.
    pub bounds: Vec<f64>,
    /// Observations between each two bounds; one more than there are bounds.
    pub counts: Vec<u64>,
    /// Sum of all observations.
    pub sum: f64,
}

/// The histograms of a family.
///
/// # Errors
/// What keeps it from being one.
pub fn histograms(family: &Family) -> Result<Vec<Histogram>, String> {
    // With its buckets (bound, count) and its own count, as far as they have been seen.
    type Seen = (Histogram, Vec<(f64, f64)>, Option<f64>);
    let mut found: Vec<Seen> = Vec::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let bound = labels.iter().position(|(name, _)| name == "le").map(|at| labels.remove(at).1);
        let at = found.iter().position(|(known, ..)| known.labels == labels).unwrap_or_else(|| {
            found.push((Histogram { labels, ..Histogram::default() }, Vec::new(), None));
            found.len() - 1
        });
        let (histogram, buckets, count) = &mut found[at];
        match (sample.suffix, bound) {
            ("_bucket", Some(bound)) => {
                let bound = if bound == "+Inf" { Ok(f64::INFINITY) } else { bound.parse() };
                buckets.push((bound.map_err(|_| "a bound that is no number")?, sample.value));
            }
            ("_sum", None) => histogram.sum = sample.value,
            ("_count", None) => *count = Some(sample.value),
            _ => return Err(format!("{}: le stands where it does not belong, or is missing", family.name)),
        }
    }
    found
        .into_iter()
        .map(|(mut histogram, buckets, count)| {
            let grows = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            let whole = buckets.last().is_some_and(|(bound, n)| bound.is_infinite() && count == Some(*n));
            if !grows || !whole {
                return Err(format!("{}: buckets that do not grow up to +Inf and the count", family.name));
            }
            let mut below = 0.0;
            for (bound, n) in buckets {
                histogram.counts.push((n - below) as u64);
                below = n;
                if bound.is_finite() {
                    histogram.bounds.push(bound);
                }
            }
            Ok(histogram)
        })
        .collect()
}

fn check_histogram(family: &Family) -> Result<(), String> {
    histograms(family).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut counter = Family::new("a_restarts", Kind::Counter, "Restarts");
        counter.add(&[("path", "x\"\\\ny"), ("reason", "panicked")], 3.0);
        let mut gauge = Family::new("b", Kind::Gauge, "B");
        gauge.add(&[], -0.5);
        let mut histogram = Family::new("c_seconds", Kind::Histogram, "C");
        histogram.observe(&[("path", "x")], &[0.001, 0.5], &[2, 0, 1], 7.5);
        let families = vec![counter, gauge, histogram];
        let mut text = String::new();
        families.iter().for_each(|family| family.write(&mut text));
        Family::new("empty", Kind::Gauge, "nothing").write(&mut text);
        text.push_str("# EOF\n");
        assert_eq!(read(&text).unwrap(), families, "{text}");
        let read = histograms(&families[2]).unwrap();
        assert_eq!(
            (read[0].bounds.as_slice(), read[0].counts.as_slice(), read[0].sum),
            (&[0.001, 0.5][..], &[2, 0, 1][..], 7.5)
        );
    }

    #[test]
    fn what_prometheus_would_refuse_is_refused_with_its_line() {
        let head = "# HELP a A.\n# TYPE a counter\n";
        for (body, why) in [
            ("a_total 1\n", "# EOF"),
            ("a_total 1\na_total 2\n# EOF\n", "there already"),
            ("a 1\n# EOF\n", "suffix"),
            ("a_total -1\n# EOF\n", "cannot be"),
            ("a_total x\n# EOF\n", "no number"),
            ("a_total{b=\"c} 1\n# EOF\n", "without an end"),
            ("a_total{b=\"c\",b=\"d\"} 1\n# EOF\n", "there twice"),
            ("b_total 1\n# EOF\n", "another family"),
            ("# TYPE a counter\n# EOF\n", "second time"),
            ("# TYPE b counter\n# EOF\n", "no help"),
            ("# HELP b B.\n# TYPE b summary\n# EOF\n", "kind summary"),
            ("# HELP 1b B.\n# TYPE 1b gauge\n# EOF\n", "no name"),
            (
                "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_count 1\n# EOF\n",
                "grow",
            ),
            ("# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_count 2\n# EOF\n", "grow"),
        ] {
            let error = read(&format!("{head}{body}")).unwrap_err();
            assert!(error.contains(why), "{why} in {error}");
        }
    }
}
