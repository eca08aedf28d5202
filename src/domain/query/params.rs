//! The pairs of a query string, each to be taken once: unknown names, doubled names and values out of bounds are refused by name.

use super::bounds::Bounds;
use super::failure::BadParameter;

/// Items on a page when `limit` is absent and nothing else is configured.
pub const DEFAULT_LIMIT: u32 = 100;
/// Most items on a page where nothing else is configured.
pub const MAX_LIMIT: u32 = 10_000;
/// Longest name or value of one parameter, in bytes.
const LONGEST_TEXT: usize = 4096;
/// Most `attr.` filters in one query.
const MOST_ATTRIBUTES: usize = 16;

/// One `attr.KEY=VALUE` or `attr.KEY!=VALUE`: a span, log, point or resource attribute compared as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AttributeMatch {
    /// Attribute key, such as `http.request.method`.
    pub key: String,
    /// Value as text: `200`, `true`, `GET`.
    pub value: String,
    /// True for `!=`; records without the attribute match too.
    pub negated: bool,
}

/// The parameters of one request, names checked.
#[derive(Debug, Clone)]
pub struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// Takes the decoded pairs of a query string. `known` are the names the route knows; `attr.KEY` is allowed when `attributes` is.
    /// An empty value counts as absent, except for attributes.
    ///
    /// # Errors
    /// [`BadParameter`] for an unknown name (with the nearest known one), a name given twice, and a text of more than 4096 bytes.
    pub fn new(pairs: Vec<(String, String)>, known: &[&str], attributes: bool) -> Result<Self, BadParameter> {
        let mut kept: Vec<(String, String)> = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            let is_attribute = attributes && name.starts_with("attr.");
            if name.len().max(value.len()) > LONGEST_TEXT {
                let shown: String = name.chars().take(64).collect();
                return Err(BadParameter::new(shown, format!("is longer than {LONGEST_TEXT} bytes")));
            }
            if !is_attribute && !known.contains(&name.as_str()) {
                return Err(unknown(&name, known, attributes));
            }
            if !is_attribute && kept.iter().any(|(other, _)| *other == name) {
                return Err(BadParameter::new(name, "is given twice"));
            }
            if is_attribute || !value.is_empty() {
                kept.push((name, value));
            }
        }
        Ok(Self { pairs: kept })
    }

    /// The value of a parameter, if it was given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter as an owned text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// `limit`, from 1 to what the bounds allow, their default when absent.
    ///
    /// # Errors
    /// [`BadParameter`] for anything else.
    pub fn limit(&self, bounds: &Bounds) -> Result<u32, BadParameter> {
        let Some(text) = self.get("limit") else { return Ok(bounds.default_limit) };
        let most = bounds.max_limit;
        match text.parse::<u32>() {
            Ok(limit) if (1..=most).contains(&limit) => Ok(limit),
            _ => Err(BadParameter::new("limit", format!("{text:?} is not a whole number from 1 to {most}"))),
        }
    }

    /// All `attr.` filters, in order.
    ///
    /// # Errors
    /// [`BadParameter`] for a filter without a key and for more than 16 filters.
    pub fn attributes(&self) -> Result<Vec<AttributeMatch>, BadParameter> {
        let mut found = Vec::new();
        for (name, value) in &self.pairs {
            let Some(key) = name.strip_prefix("attr.") else { continue };
            // `attr.k!=v` arrives as the pair (`attr.k!`, `v`).
            let (key, negated) = key.strip_suffix('!').map_or((key, false), |key| (key, true));
            if key.is_empty() {
                return Err(BadParameter::new(name, "needs a key: attr.KEY=VALUE"));
            }
            if found.len() == MOST_ATTRIBUTES {
                return Err(BadParameter::new(
                    name,
                    format!("is one filter more than the {MOST_ATTRIBUTES} allowed"),
                ));
            }
            found.push(AttributeMatch { key: key.to_owned(), value: value.clone(), negated });
        }
        Ok(found)
    }

    /// The entry of `choices` that the parameter names, letter case ignored.
    ///
    /// # Errors
    /// [`BadParameter`] listing the choices.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, BadParameter> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let found = choices.iter().find(|(choice, _)| choice.eq_ignore_ascii_case(text));
        found.map(|(_, value)| Some(*value)).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
            BadParameter::new(name, format!("{text:?} is none of {}", names.join(", ")))
        })
    }
}

fn unknown(name: &str, known: &[&str], attributes: bool) -> BadParameter {
    let shown: String = name.chars().take(64).collect();
    let near = known.iter().map(|k| (strsim::osa_distance(k, &shown), *k)).min();
    let near = near.filter(|(distance, k)| *distance <= 2.min(k.len() / 2)).map(|(_, k)| k);
    let mut detail = match near {
        Some(near) => format!("is not known here, did you mean {near:?}?"),
        None if known.is_empty() => "is not known here: this path takes no parameters".to_owned(),
        None => format!("is not known here, known are {}", known.join(", ")),
    };
    if attributes && near.is_none() {
        detail.push_str(" and attr.KEY");
    }
    BadParameter::new(shown, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Result<Params, BadParameter> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Params::new(pairs, &["service", "limit", "start"], true)
    }

    #[test]
    fn refuses_unknown_names_with_a_suggestion() {
        let err = params(&[("servise", "x")]).unwrap_err();
        assert_eq!((err.parameter.as_str(), err.detail.contains("\"service\"")), ("servise", true));
        let err = params(&[("colour", "x")]).unwrap_err();
        assert!(err.detail.contains("service, limit, start and attr.KEY"), "{}", err.detail);
        assert!(Params::new(vec![("attr.k".into(), "v".into())], &["q"], false).is_err());
    }

    #[test]
    fn refuses_doubles_and_long_texts() {
        assert!(params(&[("start", "1"), ("start", "2")]).unwrap_err().detail.contains("twice"));
        assert!(params(&[("service", &"x".repeat(LONGEST_TEXT + 1))]).is_err());
        assert!(params(&[("attr.a", "1"), ("attr.a", "2")]).is_ok());
    }

    #[test]
    fn limits_have_a_default_and_bounds() {
        let bounds = Bounds::default();
        assert_eq!(params(&[]).unwrap().limit(&bounds), Ok(DEFAULT_LIMIT));
        assert_eq!(params(&[("limit", "10000")]).unwrap().limit(&bounds), Ok(10_000));
        let narrow = Bounds { default_limit: 5, max_limit: 7, ..bounds };
        assert_eq!(params(&[]).unwrap().limit(&narrow), Ok(5));
        assert!(
            params(&[("limit", "8")]).unwrap().limit(&narrow).unwrap_err().detail.contains("from 1 to 7")
        );
        for bad in ["0", "10001", "-1", "ten", "1.5"] {
            assert_eq!(
                params(&[("limit", bad)]).unwrap().limit(&bounds).unwrap_err().parameter,
                "limit",
                "{bad}"
            );
        }
    }

    #[test]
    fn reads_attribute_filters() {
        let found = params(&[("attr.a.b", "1"), ("attr.c!", ""), ("service", "")]).unwrap();
        assert_eq!(found.get("service"), None);
        let want = |key: &str, value: &str, negated| AttributeMatch {
            key: key.into(),
            value: value.into(),
            negated,
        };
        assert_eq!(found.attributes().unwrap(), [want("a.b", "1", false), want("c", "", true)]);
        assert!(params(&[("attr.", "x")]).unwrap().attributes().is_err());
        let many: Vec<(&str, &str)> = (0..=MOST_ATTRIBUTES).map(|_| ("attr.k", "v")).collect();
        assert!(params(&many).unwrap().attributes().is_err());
    }
}
