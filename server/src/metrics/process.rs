//! What the process takes, under the names that all of Prometheus' clients give it. Linux tells it under `/proc`; what
//! cannot be read there is left out.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::reading::gauge;

#[derive(Debug, Default)]
pub(super) struct Process {
    cpu_seconds: Option<f64>,
    start_seconds: Option<u64>,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
}

impl Process {
    /// What it takes now.
    pub(super) fn read() -> Self {
        let stat = fs_err::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs_err::read_to_string("/proc/stat").unwrap_or_default();
        let fds = fs_err::read_dir("/proc/self/fd").ok();
        Self {
            // The directory that is read is open meanwhile.
            open_fds: fds.map(|fds| fds.count().saturating_sub(1) as u64),
            max_fds: getrlimit(Resource::Nofile).current,
            ..Self::parse(&stat, &boot).unwrap_or_default()
        }
    }

    /// See proc_pid_stat(5). The program's name stands in parentheses and may hold anything.
    fn parse(stat: &str, boot: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // The third field of the manual page is the first here.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = clock_ticks_per_second().max(1);
        let booted: Option<u64> =
            boot.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|time| time.parse().ok());
        Some(Self {
            cpu_seconds: Some((field(14)? + field(15)?) as f64 / ticks as f64),
            start_seconds: booted.zip(field(22)).map(|(booted, ticked)| booted + ticked / ticks),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * page_size() as u64),
            open_fds: None,
            max_fds: None,
        })
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        if let Some(cpu) = self.cpu_seconds {
            let help = "Processor time of the process, in seconds.";
            let encoder = encoder.encode_descriptor("cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(cpu).encode(encoder)?;
        }
        let gauges = [
            ("start_time_seconds", "When the process started, in seconds since 1970.", self.start_seconds),
            ("resident_memory_bytes", "Memory of the process that is resident.", self.resident_bytes),
            ("virtual_memory_bytes", "Addresses that the process has mapped.", self.virtual_bytes),
            ("open_fds", "Open file descriptors.", self.open_fds),
            ("max_fds", "The most file descriptors that the process may open.", self.max_fds),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                gauge(&mut encoder, name, help, value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_anything_in_it_does_not_matter() {
        let numbers = "S 1 1 1 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 8 0 1000 4096000 500 0 0";
        let process = Process::parse(&format!("17 (a) (b) {numbers}"), "cpu 1\nbtime 1700000000\n").unwrap();
        let ticks = clock_ticks_per_second();
        assert_eq!(process.cpu_seconds, Some(300.0 / ticks as f64));
        assert_eq!(process.start_seconds, Some(1_700_000_000 + 1000 / ticks));
        assert_eq!(process.resident_bytes, Some(500 * page_size() as u64));
        assert!(Process::parse("", "").is_none() && Process::parse("1 (a) S 2", "").is_none());
    }
}
