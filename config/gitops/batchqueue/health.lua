-- Health of a BatchQueue for Argo CD. The same verdicts as kstatus, and Suspended beside them.
local health = { status = "Progressing", message = "Waiting for the controller" }

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "Being deleted"
  return health
end

if obj.status == nil or obj.status.conditions == nil then
  return health
end

if obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the controller to see generation " .. tostring(obj.metadata.generation)
  return health
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end

local function is(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end

-- A queue that is stopped does all that it is to do: nothing. One that drains for a peak does its work.
local stopped = { Held = true, Draining = true, Drained = true }

if is("Reconciling") then
  health.message = conditions["Reconciling"].reason .. ": " .. conditions["Reconciling"].message
elseif is("Stalled") then
  health.status = "Degraded"
  health.message = conditions["Stalled"].reason .. ": " .. conditions["Stalled"].message
elseif is("Ready") then
  local for_peak = is("PeakWindowActive") and conditions["PeakWindowActive"].message == conditions["Ready"].message
  health.status = stopped[conditions["Ready"].reason] and not for_peak and "Suspended" or "Healthy"
  health.message = conditions["Ready"].message
end

return health
