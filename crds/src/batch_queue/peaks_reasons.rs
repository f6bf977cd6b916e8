//! The condition reasons of peak windows.

use crate::reason::reasons;

reasons! {
    /// Whether a peak window or a load trigger limits what may run.
    pub enum PeakWindowActiveReason for "PeakWindowActive" {
        /// A peak is near: its tiers start nothing more, or less, and their pods are ending.
        Draining => True,
        /// A peak window is open.
        Closed => True,
        /// A peak is over: what it held back starts little by little.
        Ramping => True,
        /// spec.overridePeak is ForceOn: every window's strongest actions hold.
        Forced => True,
        /// A load trigger is on, or nobody knows the load that it looks at. The message says which, and why.
        LoadTrigger => True,
        /// No peak window is open or near.
        Idle => False,
        /// spec.overridePeak is ForceOff: no window and no load trigger has an effect.
        ForcedOff => False,
        /// It is not known when a window opens; the tiers that it would hold or drain start nothing. The message
        /// names the window and the remedy.
        Unresolved => Unknown,
    }
}

reasons! {
    /// Whether pods will still run when their peak starts.
    pub enum DrainWillMissReason for "DrainWillMiss" {
        /// There are more pods than drainPodsPerSecond can end within leadSeconds; raise one of the two.
        RateTooLow => True,
        /// Pods have a longer grace than leadSeconds leaves them, so that it will be cut; raise leadSeconds.
        GraceTooLong => True,
        /// The manager's write budget is too small to end all pods within leadSeconds; raise one of the two.
        BudgetTooSmall => True,
        /// The pods that have to go will be gone in time.
        OnTime => False,
    }
}
