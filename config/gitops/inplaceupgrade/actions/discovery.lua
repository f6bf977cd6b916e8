-- Actions of Argo CD on an InPlaceUpgrade. What is being deleted has none; one that plans alone has nothing to pause.
local deleting = obj.metadata.deletionTimestamp ~= nil
local applies = obj.spec.mode == nil or obj.spec.mode == "Apply"

return {
  pause = { disabled = deleting or not applies },
  resume = { disabled = deleting or obj.spec.mode ~= "Paused" },
}
