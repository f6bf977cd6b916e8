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
