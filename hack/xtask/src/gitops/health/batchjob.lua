local complete = conditions["Complete"]
if is("Complete") then
  health.status = "Healthy"
  health.message = complete.message
elseif is("Reconciling") then
  if complete ~= nil and complete.reason == "Suspended" then
    health.status = "Suspended"
  end
  health.message = conditions["Reconciling"].reason .. ": " .. conditions["Reconciling"].message
elseif is("Stalled") then
  health.status = "Degraded"
  health.message = conditions["Stalled"].reason .. ": " .. conditions["Stalled"].message
end

return health
