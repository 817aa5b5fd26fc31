//! One line for people who watch a copy: a bar, the table, rows, time left, rate. Short, because it must fit on a
//! terminal; what is cut off there is what matters least.

use std::time::Duration;

use indicatif::{HumanCount, HumanDuration};

use super::report::Totals;

/// How many signs a bar has.
const BAR: u64 = 10;

/// So many tables that are copied at the same time are named.
const NAMED: usize = 2;

/// `[##--------] 25 % public.orders, 1,234 of ~4,936 rows, 37s left, 100/s, 1 of 3 tables done`.
pub fn bar(totals: &Totals) -> String {
    // while something is left it is not all, whatever the estimate says
    let most = if totals.tables_ended < totals.tables { 99 } else { 100 };
    let percent = (totals.rows.saturating_mul(100) / totals.estimated_rows.max(1)).min(most);
    let done = percent * BAR / 100;
    let signs: String = (0..BAR).map(|at| if at < done { '#' } else { '-' }).collect();
    let mut text = format!("[{signs}] {percent} %{}", named(&totals.copying));
    text += &match totals.estimated_rows_left {
        0 => format!(" {} rows", HumanCount(totals.rows)),
        _ => format!(" {} of ~{} rows", HumanCount(totals.rows), HumanCount(totals.estimated_rows)),
    };
    if totals.tables_ended < totals.tables {
        // a rate may be so low that nobody waits for the end
        let left = totals.left_seconds.and_then(|left| Duration::try_from_secs_f64(left.max(1.0)).ok());
        text += &left.map(|left| format!(", {:#} left", HumanDuration(left))).unwrap_or_default();
        text += &format!(", {}/s", whole(totals.rate_rows_per_second));
    }
    text + &format!(", {} of {} tables done", totals.tables_ended, totals.tables)
}

fn named(tables: &[String]) -> String {
    let shown = tables[..tables.len().min(NAMED)].join(" ");
    match tables.len() {
        0 => String::new(),
        1..=NAMED => format!(" {shown},"),
        _ => format!(" {shown} …,"),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people; the cast saturates"
)]
fn whole(rate: f64) -> HumanCount {
    HumanCount(rate.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_a_bar_with_table_rows_rate_and_time() {
        let totals = Totals {
            tables: 3,
            tables_ended: 1,
            copying: vec!["public.orders".to_owned()],
            rows: 1_234,
            estimated_rows: 4_936,
            estimated_rows_left: 3_702,
            rate_rows_per_second: 99.6,
            left_seconds: Some(37.0),
            ..Totals::default()
        };
        let shown =
            "[##--------] 25 % public.orders, 1,234 of ~4,936 rows, 37s left, 100/s, 1 of 3 tables done";
        assert_eq!(bar(&totals), shown);
        let more = Totals {
            copying: ["a.a", "a.b", "a.c"].map(str::to_owned).to_vec(),
            rows: 9_999,
            estimated_rows: 9_999,
            estimated_rows_left: 0,
            left_seconds: None,
            ..totals
        };
        assert!(bar(&more).contains("] 99 % a.a a.b …, 9,999 rows, 100/s, 1 of"), "{}", bar(&more));
        assert!(bar(&Totals::default()).contains("] 0 %"));
    }
}
