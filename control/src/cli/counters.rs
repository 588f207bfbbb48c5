//! `localvpc counters`: what was carried, and what was discarded and why.

use std::process::ExitCode;
use std::time::Duration;

use comfy_table::Table;
use localvpc_api::report::LinkCounters;

use super::client::Client;
use super::{Failure, Format, Global, output};
use crate::view::CountersView;

/// Show what was carried, and what was discarded and why
///
/// CONNTRACK LEFT is how many connections more an interface may track (conntrack_allowance_available); EXCEEDED
/// counts packets that were discarded at that limit, EVICTED half-open connections that gave way to new ones.
/// `localvpc nat --metrics` shows the NAT gateways under CloudWatch's names.
///
/// BYTES/READ tells how well offload works on a link: far above the MTU means that super-packets of up to 64
/// KiB pass unsplit. MERGED are packets that left in a super-packet made of several small ones (`up --merge off`).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  localvpc counters
  localvpc counters -o json | jq '.discards'
  watch -n1 localvpc counters")]
pub struct Args {}

pub fn run(_: Args, global: &Global) -> Result<ExitCode, Failure> {
    let counters: CountersView = Client::of(global)?.ask("/v1/counters")?;
    match global.output {
        Format::Json => output::print_json(&counters)?,
        Format::Table => output::print(&sections(&counters))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn sections(counters: &CountersView) -> String {
    let sections = [
        ("network interfaces (packets / bytes)", enis(counters)),
        ("NAT gateways", nat_gateways(counters)),
        ("discards", discards(counters)),
        ("links", links(counters)),
        ("workers", workers(counters)),
    ];
    let shown: Vec<_> = sections
        .iter()
        .filter(|(_, table)| !table.is_empty())
        .map(|(title, table)| format!("{title}\n{}", output::lines(table, "  ")))
        .collect();
    shown.join("\n")
}

fn enis(counters: &CountersView) -> Table {
    let mut table =
        output::table(&["ENI", "SENT", "RECEIVED", "CONNTRACK LEFT", "EXCEEDED", "EVICTED", "DISCARDED"]);
    for eni in &counters.enis {
        let discards: Vec<_> =
            eni.row.discards.iter().map(|it| format!("{} {}", it.packets, it.reason.code())).collect();
        table.add_row([
            eni.name.clone(),
            output::traffic(eni.row.sent),
            output::traffic(eni.row.received),
            eni.row.conntrack_allowance_available.to_string(),
            eni.row.conntrack_allowance_exceeded.to_string(),
            eni.row.conntrack_half_open_evicted.to_string(),
            if discards.is_empty() { "0".into() } else { discards.join(", ") },
        ]);
    }
    table
}

fn nat_gateways(counters: &CountersView) -> Table {
    let mut table = output::table(&[
        "NAT GATEWAY",
        "ACTIVE",
        "ATTEMPTS",
        "NO PORT",
        "TIMED OUT",
        "OUT",
        "BACK",
        "DISCARDED",
    ]);
    for gateway in &counters.nat_gateways {
        let row = &gateway.row;
        table.add_row([
            gateway.name.clone(),
            row.active_connections.to_string(),
            row.connection_attempts.to_string(),
            row.error_port_allocation.to_string(),
            row.idle_timeouts.to_string(),
            output::traffic(row.out_to_destination),
            output::traffic(row.out_to_source),
            row.packets_dropped.to_string(),
        ]);
    }
    table
}

fn discards(counters: &CountersView) -> Table {
    let mut table = output::table(&["PACKETS", "REASON", "WHY"]);
    for discard in &counters.discards {
        table.add_row([&discard.packets.to_string(), &discard.code, &discard.explanation]);
    }
    table
}

fn links(counters: &CountersView) -> Table {
    let mut table = output::table(&[
        "LINK",
        "READS",
        "READ",
        "PACKETS",
        "BYTES/READ",
        "WRITES",
        "MERGED",
        "WRITTEN",
        "BYTES/WRITE",
        "ERRORS",
    ]);
    for link in &counters.links {
        let LinkCounters {
            reads,
            read_bytes,
            read_segments,
            writes,
            merged,
            written_bytes,
            write_errors,
            ..
        } = link.row;
        table.add_row([
            link.name.clone(),
            reads.to_string(),
            output::bytes(read_bytes),
            read_segments.to_string(),
            mean(read_bytes, reads),
            writes.to_string(),
            merged.to_string(),
            output::bytes(written_bytes),
            mean(written_bytes, writes),
            write_errors.to_string(),
        ]);
    }
    table
}

fn workers(counters: &CountersView) -> Table {
    let mut table = output::table(&[
        "WORKER",
        "BATCHES",
        "PACKETS",
        "CACHE HITS",
        "WALKS",
        "FLOWS",
        "TABLE SWAPS",
        "LONGEST GAP",
    ]);
    for (index, worker) in counters.workers.iter().enumerate() {
        let gap = Duration::from_micros(worker.longest_gap_us);
        table.add_row([
            index.to_string(),
            worker.batches.to_string(),
            worker.packets.to_string(),
            worker.cache_hits.to_string(),
            worker.walks.to_string(),
            worker.cached_flows.to_string(),
            worker.table_swaps.to_string(),
            if gap < Duration::from_millis(10) {
                format!("{} us", worker.longest_gap_us)
            } else {
                output::duration(gap)
            },
        ]);
    }
    table
}

fn mean(bytes: u64, calls: u64) -> String {
    bytes.checked_div(calls).map(|mean| mean.to_string()).unwrap_or_default()
}
