//! Forms and queries as JSON objects.

use forebay_api::{Invalid, json::write_string};

use super::json::MAX_MEMBERS;
use super::object::Object;
use super::text;
use super::unreadable::because;

/// An object of strings; what is there several times is an array of them, in its order.
pub fn object(form: &str) -> Result<Object, Invalid> {
    let mut members: Vec<(String, Vec<String>)> = Vec::new();
    for pair in text::pairs(form) {
        let (name, value) =
            pair.map_err(|error| because("invalid_encoding", format!("a pair cannot be decoded: {error}")))?;
        match members.iter().position(|(known, _)| *known == name) {
            Some(at) => members[at].1.push(value.into_owned()),
            None if members.len() == MAX_MEMBERS => {
                let message = format!("it has more than {MAX_MEMBERS} names");
                return Err(because("invalid_envelope", message));
            }
            None => members.push((name.into_owned(), vec![value.into_owned()])),
        }
    }
    let mut object = Object::default();
    for (name, values) in &members {
        match &values[..] {
            [value] => object.push_string(name, value),
            values => object.push(name, &array(values)),
        }
    }
    Ok(object)
}

fn array(values: &[String]) -> Vec<u8> {
    let mut array = Vec::new();
    for value in values {
        array.push(if array.is_empty() { b'[' } else { b',' });
        write_string(value, &mut array);
    }
    array.push(b']');
    array
}
