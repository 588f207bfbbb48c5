//! Any text as a lab's file.
//!
//! - It is refused with errors that stand somewhere in it, or it means something; the same every time.
//! - What it means can be lowered, and its tables can be built: after `validate`, `up` does not fail because of the file.

use localvpc::config::Severity;
use localvpc::lower::{IdRegistry, lower};
use localvpc::model::{self, Model};
use localvpc_api::Generation;
use localvpc_engine::metrics::Metrics;
use localvpc_engine::tables;

/// Bytes: the file.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (said, again) = (Model::read("lab.yaml", text), Model::read("lab.yaml", text));
    match (&said, &again) {
        (Ok((one, warnings)), Ok((other, warned))) => {
            assert_eq!(one, other);
            assert_eq!(warnings.render(), warned.render());
        }
        (Err(one), Err(other)) => assert_eq!(one.refusal(), other.refusal()),
        _ => panic!("once accepted, once refused"),
    }
    // YAML ends a line with a carriage return, too (YAML 1.2 §5.4).
    let lines = text.replace("\r\n", "\n").matches(['\r', '\n']).count() as u32 + 1;
    let (Ok((_, told)) | Err(told)) = &said;
    for one in told.list() {
        // A note is about the file as a whole.
        let somewhere = (1..=lines).contains(&one.span.line) && one.span.column >= 1;
        assert!(somewhere || one.severity == Severity::Note, "{one:?}");
        assert!(!one.message.is_empty());
    }
    let Ok((model, _)) = said else { return };
    let lowered = lower(&model, &mut IdRegistry::default(), Generation(1));
    tables::build(&lowered.tables, &Metrics::default()).expect("what was validated can be built");
    assert_eq!(model::diff(Some(&model), &model).changes, []);
}
