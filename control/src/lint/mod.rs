//! What is legal and wrong: everything in a file that works other than was likely meant.
//!
//! Each check has a name, a severity and the fact behind it ([`catalog`]). It looks at the model for what
//! things mean and at the document for where they stand. `# lint: allow ID` in the file leaves a finding out
//! ([`crate::config::allow`]).

pub mod catalog;
mod expectations;
mod instances;
mod network_acls;
mod open;
mod ranges;
mod region;
mod replies;
mod routes;
mod security_groups;
mod subject;
mod unused;

#[cfg(test)]
mod tests;

use crate::config::diagnostic::{Diagnostics, nearest};
use crate::config::{Document, Severity, allow};
use crate::model::Model;

use catalog::{ALLOWANCE_UNKNOWN, ALLOWANCE_UNUSED, BEYOND_QUOTA, LINTS, lint};
use subject::{Findings, Subject};

/// What was found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The lab that it describes.
    pub lab: String,
    /// The findings, in the order of the file; each has the id of its check.
    pub findings: Diagnostics,
    /// How many more the file allows.
    pub allowed: usize,
}

/// Looks at a document. What the model warns of is among the findings.
///
/// # Errors
/// Where it is not valid: everything that is wrong with it.
pub fn check(document: &Document) -> Result<Report, Diagnostics> {
    let (model, warnings) = Model::from_document(document)?;
    let subject = Subject::new(document, &model);
    let mut findings = Findings(Diagnostics::new(document.source.clone()));
    take_over(warnings, &mut findings);
    routes::check(&subject, &mut findings);
    network_acls::check(&subject, &mut findings);
    replies::check(&subject, &mut findings);
    security_groups::check(&subject, &mut findings);
    open::check(&subject, &mut findings);
    instances::check(&subject, &mut findings);
    unused::check(&subject, &mut findings);
    expectations::check(&subject, &mut findings);
    let mut findings = findings.0;
    findings.leave_out_allowed();
    let allowed = findings.used().len();
    let mut findings = Findings(findings);
    allowances(&document.source.text, &mut findings);
    let mut findings = findings.0;
    findings.sort();
    Ok(Report { lab: model.lab, findings, allowed })
}

impl Report {
    /// The gravest severity; `None` where nothing was found.
    pub fn worst(&self) -> Option<Severity> {
        let has = |severity| self.findings.list().iter().any(|one| one.severity == severity);
        [Severity::Error, Severity::Warning].into_iter().find(|severity| has(*severity))
    }
}

/// The model's warnings, one for each place, with the severity of their check.
fn take_over(mut warnings: Diagnostics, findings: &mut Findings) {
    for mut one in warnings.list_mut().drain(..) {
        let Some(lint) = one.id.and_then(lint) else { continue };
        let also = std::mem::take(&mut one.also);
        for span in std::iter::once(one.span).chain(also) {
            let found = findings.add(lint, span, one.message.clone());
            found.help.clone_from(&one.help);
            found.related.clone_from(&one.related);
        }
    }
    findings.0.append(warnings);
}

/// Allowances of checks that do not exist, and of what was not found.
fn allowances(text: &str, findings: &mut Findings) {
    let used = findings.0.used().to_vec();
    for one in allow::allowances(text) {
        if lint(&one.id).is_none() {
            let help = match nearest(&one.id, LINTS.iter().map(|lint| lint.id)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`localvpc lint --list` shows all of them.".into(),
            };
            findings
                .add(&ALLOWANCE_UNKNOWN, one.span, format!("there is no check called `{}`", one.id))
                .help(help);
        // Quotas are checked where they are asked for.
        } else if !used.contains(&one) && one.id != BEYOND_QUOTA.id {
            let message = match one.line {
                0 => format!("this allows `{}`, and no line follows", one.id),
                line => format!("this allows `{}` on line {line}, where it is not found", one.id),
            };
            findings
                .add(&ALLOWANCE_UNUSED, one.span, message)
                .help("remove it, or move it to the line that the finding names.");
        }
    }
}
