-- Actions of Argo CD on a BatchQueue. What is being deleted has none.
local deleting = obj.metadata.deletionTimestamp ~= nil
local stopped = obj.spec.stopPolicy ~= nil and obj.spec.stopPolicy ~= "None"

return {
  pause = { disabled = deleting or stopped },
  resume = { disabled = deleting or not stopped },
}
