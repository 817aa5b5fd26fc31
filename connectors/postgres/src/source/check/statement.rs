//! Remedies as text: SQL in lines of their own that can be pasted as they are, and words for people as its comments.

use postgres_protocol::escape::escape_identifier;

use crate::source::catalog::Table;

/// A finding shows so many statements; whoever has run them sees the next ones.
const MOST: usize = 100;

/// A name as SQL writes it, in one line whatever is in it.
pub(in crate::source) fn identifier(name: &str) -> String {
    if !name.chars().any(char::is_control) {
        return escape_identifier(name);
    }
    let escaped = name.chars().map(|c| match c {
        '"' => "\"\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        c if c.is_control() => format!("\\+{:06X}", u32::from(c)),
        c => c.to_string(),
    });
    format!("U&\"{}\"", escaped.collect::<String>())
}

/// A text as SQL writes it, in one line.
pub(in crate::source) fn literal(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '\'' => "''".to_owned(),
        '\\' => "\\\\".to_owned(),
        c if c.is_control() => format!("\\+{:06X}", u32::from(c)),
        c => c.to_string(),
    });
    let unicode = if text.chars().any(|c| c.is_control() || c == '\\') { "U&" } else { "" };
    format!("{unicode}'{}'", escaped.collect::<String>())
}

/// `"schema"."table"`.
pub(in crate::source) fn table(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

/// `schema.table` for people: a terminal gets no control characters, and a line stays one.
pub(in crate::source) fn shown(schema: &str, name: &str) -> String {
    plain(&format!("{schema}.{name}"))
}

/// A text for people.
pub(in crate::source) fn plain(text: &str) -> String {
    let escaped =
        text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() });
    escaped.collect()
}

/// The first of many names, and how many more there are.
pub(in crate::source) fn names(all: &[String]) -> String {
    const SHOWN: usize = 10;
    match all.len().checked_sub(SHOWN) {
        None | Some(0) => all.join(", "),
        Some(more) => format!("{} and {more} more", all[..SHOWN].join(", ")),
    }
}

/// The names of tables, as [`names`].
pub(in crate::source) fn table_names(tables: &[Table]) -> String {
    names(&tables.iter().map(|table| shown(&table.schema, &table.name)).collect::<Vec<_>>())
}

/// Statements, one in a line, and what else can be done.
pub(in crate::source) fn remedy(statements: &[String], comment: &str) -> String {
    let mut lines: Vec<String> = statements.iter().take(MOST).cloned().collect();
    if let Some(more) = statements.len().checked_sub(MOST).filter(|more| *more > 0) {
        lines.push(format!("-- and {more} more, which the next `forebay check` shows"));
    }
    if !comment.is_empty() {
        lines.push(format!("-- {comment}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_breaks_out_of_its_statement_or_its_line() {
        assert_eq!(table("public", "orders"), r#""public"."orders""#);
        assert_eq!(identifier("O\"Neil"), r#""O""Neil""#);
        assert_eq!(identifier("a\n; drop\\\""), r#"U&"a\+00000A; drop\\""""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\nb\\"), r"U&'a\+00000Ab\\'");
        assert_eq!(shown("public", "a\u{1b}[31m"), r"public.a\u{1b}[31m");
    }

    #[test]
    fn a_remedy_has_a_limit_and_says_what_it_leaves_out() {
        let statements: Vec<String> = (0..=MOST).map(|n| format!("SELECT {n};")).collect();
        let text = remedy(&statements, "or not");
        assert_eq!(text.lines().count(), MOST + 2);
        assert!(text.contains("-- and 1 more") && text.ends_with("-- or not"), "{text}");
        assert_eq!(remedy(&statements[..1], ""), "SELECT 0;");
        let many: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(names(&many), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
        assert!(!names(&many[..10]).contains("more"));
    }
}
