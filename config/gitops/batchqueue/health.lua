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

-- A queue that its users stopped does all that it is to do: nothing. One that is closed for a peak does its work.
local stopped = obj.spec.stopPolicy ~= nil and obj.spec.stopPolicy ~= "None"

if is("Reconciling") then
  health.message = conditions["Reconciling"].reason .. ": " .. conditions["Reconciling"].message
elseif is("Stalled") then
  health.status = "Degraded"
  health.message = conditions["Stalled"].reason .. ": " .. conditions["Stalled"].message
elseif is("Ready") then
  health.status = stopped and "Suspended" or "Healthy"
  health.message = conditions["Ready"].message
end

return health
