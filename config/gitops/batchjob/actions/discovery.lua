-- Actions of Argo CD on a BatchJob. What has ended, or is being deleted, has none.
local ended = obj.metadata.deletionTimestamp ~= nil

if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    if (condition.type == "Complete" or condition.type == "Failed") and condition.status == "True" then
      ended = true
    end
  end
end

local stopped = obj.spec.stopPolicy ~= nil and obj.spec.stopPolicy ~= "None"

return {
  pause = { disabled = ended or stopped },
  resume = { disabled = ended or not stopped },
}
