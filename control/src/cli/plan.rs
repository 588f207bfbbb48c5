//! A plan as `up` shows it.

use owo_colors::{OwoColorize, Style};

use crate::view::{Change, ChangeAction, Plan};

/// A line per change: `+ subnet main/private-a`, `~ security group db: 1 rule added`; then what stays.
pub fn render(plan: &Plan) -> String {
    let mut text: String = plan.changes.iter().map(line).collect();
    text += &match (plan.changes.len(), plan.unchanged) {
        (0, unchanged) => format!("= nothing to do, {unchanged} unchanged\n"),
        (_, 0) => String::new(),
        (_, unchanged) => format!("= {unchanged} unchanged\n"),
    };
    text
}

fn line(change: &Change) -> String {
    let (sign, style) = match change.action {
        ChangeAction::Add => ('+', Style::new().green()),
        ChangeAction::Change => ('~', Style::new().yellow()),
        ChangeAction::Remove => ('-', Style::new().red()),
    };
    let Change { kind, name, detail, .. } = change;
    let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
    format!("{} {kind} {name}{detail}\n", sign.style(style))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_change() {
        let change = |action, kind: &str, name: &str, detail: &str| Change {
            action,
            kind: kind.into(),
            name: name.into(),
            detail: detail.into(),
        };
        let mut plan = Plan {
            changes: vec![
                change(ChangeAction::Add, "subnet", "main/private-a", ""),
                change(ChangeAction::Change, "security group", "db", "1 rule added"),
                change(ChangeAction::Remove, "instance", "old", ""),
            ],
            unchanged: 14,
            warnings: vec![],
        };
        let plain = |plan: &Plan| anstream::adapter::strip_str(&render(plan)).to_string();
        let expected = "\
+ subnet main/private-a
~ security group db: 1 rule added
- instance old
= 14 unchanged
";
        assert_eq!(plain(&plan), expected);
        plan.changes.clear();
        assert_eq!(plain(&plan), "= nothing to do, 14 unchanged\n");
    }
}
