//! Texts with the fields of an item: `Question: {question}`.

use serde_json::{Map, Value};

/// A text with places for the fields of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

impl Template {
    /// Parses a template. `{name}` is a field, `{{` and `}}` are braces.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '{' | '}' if rest.peek() == Some(&c) => {
                    plain.push(c);
                    rest.next();
                }
                '{' => {
                    let mut name = String::new();
                    while let Some(c) = rest.next_if(|c| *c != '}' && *c != '{') {
                        name.push(c);
                    }
                    if rest.next() != Some('}') {
                        return Err(format!("`{{{name}` is not closed; write {{{{ for a brace"));
                    }
                    if name.trim().is_empty() {
                        return Err("`{}` names no field; write {{}} for braces".into());
                    }
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                    parts.push(Part::Field(name.trim().into()));
                }
                '}' => return Err("a `}` closes no field; write }} for a brace".into()),
                c => plain.push(c),
            }
        }
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// The text with the fields of `item`.
    pub(crate) fn fill(&self, item: &Map<String, Value>) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Field(name) => text.push_str(&plain(name, field(item, name)?)?),
            }
        }
        Ok(text)
    }
}

/// The value of a field.
pub(crate) fn field<'a>(item: &'a Map<String, Value>, name: &str) -> Result<&'a Value, String> {
    item.get(name).ok_or_else(|| {
        let fields: Vec<&str> = item.keys().map(String::as_str).take(20).collect();
        format!("there is no field `{name}`; the fields are: {}", fields.join(", "))
    })
}

/// The text of a value that is neither a list nor an object.
pub(crate) fn plain(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        _ => Err(format!("the field `{name}` must be a text or a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_filled_in_and_braces_are_doubled() {
        let item = json!({"a": "x", "n": 3, "list": []});
        let item = item.as_object().unwrap();
        let filled = |text: &str| Template::parse(text).unwrap().fill(item);
        assert_eq!(filled("{a}: { n } {{a}}{a}").unwrap(), "x: 3 {a}x");
        assert_eq!(filled("").unwrap(), "");
        assert!(filled("{b}").unwrap_err().contains("a, list, n"));
        assert!(filled("{list}").unwrap_err().contains("`list` must be a text"));
        for (text, says) in
            [("{a", "not closed"), ("{a{b}", "not closed"), ("a}", "closes no"), ("{}", "no field")]
        {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
