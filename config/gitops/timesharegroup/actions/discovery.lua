-- Actions of Argo CD on a TimeShareGroup. What is being deleted has none; one that only observes has nothing to pause.
local deleting = obj.metadata.deletionTimestamp ~= nil
local active = obj.spec.mode == nil or obj.spec.mode == "Active"

return {
  pause = { disabled = deleting or not active },
  resume = { disabled = deleting or obj.spec.mode ~= "Paused" },
}
