//! The small XML documents that travel in SIP: presence, dialog-info, IMDN, isComposing.
//!
//! Read into a tree within narrow limits: no document type, no entities but the five of XML and character references,
//! UTF-8 only. Names lose their prefixes: documents of these kinds never use one local name in two meanings, and peers
//! that mix namespaces up are understood all the same.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

/// Largest document that is read, in bytes: a presence document of a busy person stays below 4 kB.
pub const MAX_DOCUMENT: usize = 64 * 1024;
/// Elements inside each other; documents of these kinds use six.
pub const MAX_DEPTH: usize = 32;
/// Attributes of one element.
pub const MAX_ATTRIBUTES: usize = 64;
/// Elements of one document, so that its tree stays below a megabyte.
pub const MAX_ELEMENTS: usize = 4096;

/// Why a document is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    #[error("the document of {0} bytes is longer than {MAX_DOCUMENT}")]
    TooLong(usize),
    #[error("the document is not UTF-8 at byte {0}")]
    NotUtf8(usize),
    #[error("the document has a document type, which is not read")]
    DocumentType,
    #[error("entity {0:?} is not one of XML's own")]
    Entity(String),
    #[error("elements are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("an element has more than {MAX_ATTRIBUTES} attributes")]
    TooManyAttributes,
    #[error("the document has more than {MAX_ELEMENTS} elements")]
    TooManyElements,
    #[error("the document has no root element")]
    NoRoot,
    #[error("{what} at byte {at}")]
    Syntax { what: String, at: u64 },
}

/// One element, its name and attribute names without prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    /// Its own text, pieces around children joined, trimmed.
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    /// The first child of this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// All children of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The text of the first child of this name, unless it is empty.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str()).filter(|text| !text.is_empty())
    }
}

/// Reads a whole document and gives its root.
///
/// # Errors
/// [`XmlError`], for whatever is no document within the limits.
pub fn parse(bytes: &[u8]) -> Result<Element, XmlError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(XmlError::TooLong(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| XmlError::NotUtf8(error.valid_up_to()))?;
    let text = text.trim_start_matches('\u{feff}').trim_start(); // peers put line ends before the declaration
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    let mut count = 0;
    let mut root = None;
    loop {
        let event = reader
            .read_event()
            .map_err(|error| XmlError::Syntax { what: error.to_string(), at: reader.error_position() })?;
        match event {
            Event::Start(start) => {
                if open.len() >= MAX_DEPTH {
                    return Err(XmlError::TooDeep);
                }
                open.push(element(&start, &mut count)?);
            }
            Event::Empty(start) => {
                if open.len() >= MAX_DEPTH {
                    return Err(XmlError::TooDeep);
                }
                close(element(&start, &mut count)?, &mut open, &mut root);
            }
            Event::End(_) => {
                if let Some(done) = open.pop() {
                    close(done, &mut open, &mut root);
                }
            }
            Event::Text(piece) => push_text(&mut open, &piece.xml10_content()),
            Event::CData(piece) => push_text(&mut open, &piece.xml10_content()),
            Event::GeneralRef(name) => {
                let name = name.into_inner();
                let letter = entity(&name).ok_or_else(|| XmlError::Entity(name.chars().take(32).collect()))?;
                push_text(&mut open, letter.encode_utf8(&mut [0; 4]));
            }
            Event::DocType(_) => return Err(XmlError::DocumentType),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof if open.is_empty() => return root.ok_or(XmlError::NoRoot),
            Event::Eof => {
                let what = format!("the document ends inside <{}>", open.last().map_or("", |last| &last.name));
                return Err(XmlError::Syntax { what, at: text.len() as u64 });
            }
        }
    }
}

fn element(start: &BytesStart<'_>, count: &mut usize) -> Result<Element, XmlError> {
    *count += 1;
    if *count > MAX_ELEMENTS {
        return Err(XmlError::TooManyElements);
    }
    let syntax = |what: String| XmlError::Syntax { what, at: 0 };
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| syntax(error.to_string()))?;
        if attributes.len() >= MAX_ATTRIBUTES {
            return Err(XmlError::TooManyAttributes);
        }
        let value = attribute
            .normalized_value_with(XmlVersion::Implicit1_0, 0, |_| None)
            .or_else(|_| attribute.normalized_value(XmlVersion::Implicit1_0));
        let value = value.map_err(|error| syntax(error.to_string()))?;
        attributes.push((local(attribute.key.as_ref()).to_owned(), value.into_owned()));
    }
    Ok(Element { name: local(start.name().as_ref()).to_owned(), attributes, ..Element::default() })
}

/// A name without its prefix.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

fn close(mut done: Element, open: &mut [Element], root: &mut Option<Element>) {
    let trimmed = done.text.trim();
    if trimmed.len() != done.text.len() {
        done.text = trimmed.to_owned();
    }
    match open.last_mut() {
        Some(parent) => parent.children.push(done),
        None => {
            root.get_or_insert(done);
        }
    }
}

fn push_text(open: &mut [Element], piece: &str) {
    if let Some(current) = open.last_mut() {
        current.text.push_str(piece);
    }
}

/// One of the five entities of XML, or a character reference without its `&` and `;`.
fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let digits = name.strip_prefix('#')?;
            let code = match digits.strip_prefix(['x', 'X']) {
                Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok()?,
                None => digits.parse().ok()?,
            };
            char::from_u32(code).filter(|&letter| letter != '\0')
        }
    }
}

/// Text as it may stand in an element or an attribute; what no document can hold is left out.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\t' | '\n' | '\r' => out.push(letter),
            _ if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {}
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_document_becomes_a_tree_without_prefixes() {
        let text = "\u{feff}\r\n<?xml version=\"1.0\"?><!-- a comment -->\n<p:presence xmlns:p='urn:x' entity=\"a&amp;b\">\n\
                    <tuple id='1'>one &lt;&#65;&#x42;&gt; <x/>two</tuple><tuple id=\"2\"><![CDATA[<raw>&amp;]]></tuple>\
                    </p:presence>\n";
        let root = parse(text.as_bytes()).unwrap();
        assert_eq!((root.name.as_str(), root.attribute("entity")), ("presence", Some("a&b")));
        let texts: Vec<&str> = root.all("tuple").map(|tuple| tuple.text.as_str()).collect();
        assert_eq!(texts, ["one <AB> two", "<raw>&amp;"]);
        assert_eq!(root.child("tuple").unwrap().child("x").unwrap().text, "");
        assert_eq!(root.text_of("tuple"), Some("one <AB> two"));
        assert_eq!(root.text_of("nothing"), None);
    }

    #[test]
    fn bombs_and_foreign_entities_are_refused_by_name() {
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        let attributes = |count: usize| {
            let all: String = (0..count).map(|number| format!(" a{number}='x'")).collect();
            format!("<a{all}/>")
        };
        let laughs = "<!DOCTYPE a [<!ENTITY l \"lol\"><!ENTITY m \"&l;&l;\">]><a>&m;</a>";
        let external = "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>";
        let table: [(String, XmlError); 10] = [
            (laughs.into(), XmlError::DocumentType),
            (external.into(), XmlError::DocumentType),
            ("<a>&lol;</a>".into(), XmlError::Entity("lol".into())),
            ("<a>&#0;</a>".into(), XmlError::Entity("#0".into())),
            ("<a>&#xD800;</a>".into(), XmlError::Entity("#xD800".into())),
            (nested(MAX_DEPTH + 1), XmlError::TooDeep),
            (attributes(MAX_ATTRIBUTES + 1), XmlError::TooManyAttributes),
            (format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS)), XmlError::TooManyElements),
            ("x".repeat(MAX_DOCUMENT + 1), XmlError::TooLong(MAX_DOCUMENT + 1)),
            (String::new(), XmlError::NoRoot),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text.as_bytes()), Err(expected), "{:.60}", text);
        }
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(parse(attributes(MAX_ATTRIBUTES).as_bytes()).is_ok());
        assert_eq!(parse(b"<a>\xff</a>"), Err(XmlError::NotUtf8(3)));
        for bad in ["<a>", "<a></b>", "<a b>", "<a b='1' b='2'/>", "<", "</a>", "<a b='&x;'/>", "<a><b></a></b>"] {
            assert!(
                matches!(parse(bad.as_bytes()), Err(XmlError::Syntax { .. })),
                "{bad}: {:?}",
                parse(bad.as_bytes())
            );
        }
    }

    #[test]
    fn whatever_is_cut_off_is_an_error_and_never_a_panic() {
        let text = "<?xml version='1.0'?><a b=\"c\">d&amp;<e/><![CDATA[x]]><!-- y --></a>";
        for end in 0..text.len() {
            assert!(parse(text.as_bytes().get(..end).unwrap()).is_err(), "{end}");
        }
        assert!(parse(text.as_bytes()).is_ok());
    }

    #[test]
    fn escaped_text_comes_back_as_it_was() {
        let text = "a<b>&\"c\" 'd' \u{1}é\n";
        let root = parse(format!("<a b=\"{0}\">{0}</a>", escaped(text)).as_bytes()).unwrap();
        assert_eq!(root.text, "a<b>&\"c\" 'd' é");
    }
}
