//! Expectations of a lab that runs: its daemon explains them, and packets prove it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::ProgressBar;

use super::request;
use crate::check::{Verdict, judge};
use crate::cli::client::Client;
use crate::cli::file::Document;
use crate::cli::{Failure, is_root, lab, output, probing};
use crate::host::RunDir;
use crate::model::{Expectation, Model};
use crate::view::{ApplyRequest, CountersView, Explanation, Plan, StatusView};

/// The lab of the file, where it runs as the file has it.
pub struct Running {
    client: Client,
    run_dir: RunDir,
    status: StatusView,
}

/// The lab that the file describes, if it runs, is the same, and may be probed; why not, as a warning, where it runs.
pub fn running(
    document: &Document,
    model: &Model,
    warnings: &mut Vec<String>,
) -> Result<Option<Running>, Failure> {
    let run_dir = RunDir::of(&model.lab)?;
    let only = "the file is analysed, and no packet is sent (`--offline` asks for that)";
    match lab::daemon(&run_dir) {
        lab::Daemon::Absent => return Ok(None),
        lab::Daemon::NoAccess => {
            warnings.push(format!("lab {} runs, but only root may probe it: {only}", model.lab));
            return Ok(None);
        }
        lab::Daemon::Running if !is_root() => {
            warnings.push(format!("only root may send packets in lab {}: {only}", model.lab));
            return Ok(None);
        }
        lab::Daemon::Running => {}
    }
    let client = Client::new(run_dir.clone())?;
    let request = ApplyRequest::new(document.path.display().to_string(), document.text.clone());
    let plan: Plan = client.tell("/v1/plan", &request)?;
    if !plan.changes.is_empty() {
        warnings.push(format!(
            "lab {} runs another version of the file ({} to apply with `localvpc up`): {only}",
            model.lab,
            output::count(plan.changes.len() as u64, "change")
        ));
        return Ok(None);
    }
    let status = client.ask("/v1/status")?;
    Ok(Some(Running { client, run_dir, status }))
}

impl Running {
    /// Explains every expectation and sends its packet: all at once, and one that surprises again alone, so that the
    /// counters tell where it was discarded.
    ///
    /// # Errors
    /// Where the lab does not answer.
    pub fn explain(&self, expectations: &[Expectation]) -> Result<Vec<Explanation>, Failure> {
        let mut explanations = Vec::new();
        for expected in expectations {
            explanations.push(self.client.tell::<Explanation>("/v1/explain", &request(expected))?);
        }
        let bar = ProgressBar::new(explanations.len() as u64);
        let next = AtomicUsize::new(0);
        let probes = Mutex::new(vec![None; explanations.len()]);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(explanations.len()) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(explanation) = explanations.get(at) else { return };
                        let probe = probing::probe(&self.run_dir, &self.status, explanation);
                        // Nobody panics with it in hand.
                        probes.lock().unwrap()[at] = Some(probe.map_err(|failure| failure.message()));
                        bar.inc(1);
                    }
                });
            }
        });
        bar.finish_and_clear();
        let probes = probes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        for ((explanation, probe), expected) in explanations.iter_mut().zip(probes).zip(expectations) {
            match probe {
                Some(Ok(probe)) => explanation.probe = probe,
                Some(Err(message)) => explanation.notes.push(message),
                None => {}
            }
            if judge(expected, explanation).verdict == Verdict::Fails && explanation.probe.is_some() {
                let before: CountersView = self.client.ask("/v1/counters")?;
                explanation.probe = probing::probe(&self.run_dir, &self.status, explanation)?;
                if let Some(probe) = explanation.probe.as_mut().filter(|probe| probe.answer.is_none()) {
                    probe.discarded = probing::discarded(&self.client, &before)?;
                }
            }
        }
        Ok(explanations)
    }
}

/// Probes at a time: nearly all of their time is waiting.
const AT_ONCE: usize = 64;
