//! What the process itself takes: `process_*`, named as every Prometheus client names them.

use procfs::WithCurrentSystemInfo;
use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, boot_time_secs, ticks_per_second};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;

/// The figures of `/proc/self`, read at scrape time.
#[derive(Debug)]
pub(super) struct ProcessSource;

struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    open_fds: usize,
    max_fds: f64,
    start_seconds: f64,
}

impl Usage {
    fn read() -> ProcResult<Self> {
        let process = Process::myself()?;
        let (stat, limits) = (process.stat()?, process.limits()?);
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
        Ok(Self {
            cpu_seconds: seconds(stat.utime + stat.stime),
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            open_fds: process.fd_count()?,
            max_fds: match limits.max_open_files.soft_limit {
                LimitValue::Unlimited => f64::INFINITY,
                LimitValue::Value(files) => files as f64,
            },
            start_seconds: boot_time_secs()? as f64 + seconds(stat.starttime),
        })
    }
}

impl Collector for ProcessSource {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        // Where /proc is closed to us the rest of the scrape is worth having all the same.
        let Ok(usage) = Usage::read() else { return Ok(()) };
        let help = "Processor time used by this process, in user and in kernel mode";
        encoder
            .encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&usage.cpu_seconds, None)?;
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory", usage.resident_bytes as f64),
            ("process_virtual_memory_bytes", "Virtual memory", usage.virtual_bytes as f64),
            ("process_open_fds", "Open file descriptors", usage.open_fds as f64),
            ("process_max_fds", "Most file descriptors that may be open", usage.max_fds),
            ("process_start_time_seconds", "When this process started, in Unix time", usage.start_seconds),
        ];
        for (name, help, value) in gauges {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn the_figures_are_those_of_this_process() {
        let usage = Usage::read().unwrap();
        assert!(usage.resident_bytes > 1 << 20 && usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.open_fds >= 3 && usage.max_fds >= usage.open_fds as f64);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(
            usage.start_seconds <= now + 1.0 && usage.start_seconds > now - 86_400.0,
            "{}",
            usage.start_seconds
        );
        let held: Vec<_> = (0..20).map(|_| std::fs::File::open("/proc/self/stat").unwrap()).collect();
        assert!(Usage::read().unwrap().open_fds >= 20 + 3, "{} files are open", held.len());
    }
}
