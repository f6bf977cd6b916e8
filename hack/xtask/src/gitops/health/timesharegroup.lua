-- A switch that is held for a while goes on by itself; one that is paused, or only looked at, waits for a person.
local ready = conditions["Ready"]
local paused = obj.spec.mode == "Paused"

if is("Reconciling") then
  health.message = conditions["Reconciling"].reason .. ": " .. conditions["Reconciling"].message
elseif is("Stalled") then
  health.status = "Degraded"
  health.message = conditions["Stalled"].reason .. ": " .. conditions["Stalled"].message
elseif is("Ready") then
  health.status = paused and "Suspended" or "Healthy"
  health.message = ready.message
elseif ready ~= nil then
  if paused or ready.reason == "Paused" or ready.reason == "Observing" then
    health.status = "Suspended"
  end
  health.message = ready.reason .. ": " .. ready.message
end

return health
